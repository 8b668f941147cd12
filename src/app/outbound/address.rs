//! Which addresses webhooks may go to. An endpoint's URL comes from a caller, and must not lead into the network that the
//! service runs in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Longest URL.
const MAX_URL: usize = 2_048;

/// An address that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} leads to {address}, which is no public address")]
pub struct Blocked {
    pub host: String,
    pub address: IpAddr,
}

/// Whether an address is one of the public internet
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry>, <https://www.iana.org/assignments/iana-ipv6-special-registry>).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        // Cloud metadata, 169.254.169.254, is among these.
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation()
        // This network.
        || a == 0
        // Between a carrier and its customers.
        || a == 100 && (64..128).contains(&b)
        // Protocol assignments; benchmarks; the 6to4 relay; reserved.
        || a == 192 && b == 0 && c == 0
        || a == 198 && (18..20).contains(&b)
        || a == 192 && b == 88 && c == 99
        || a >= 240;
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = inner_v4(address) {
        return is_public_v4(inner);
    }
    let [first, second, ..] = address.segments();
    // Only 2000::/3 is in use; of it, protocol assignments (Teredo among them) and documentation are not for this.
    let is_special = first == 0x2001 && (second < 0x0200 || second == 0x0db8) || first == 0x3fff && second < 0x1000;
    first & 0xe000 == 0x2000 && !is_special
}

/// The IPv4 address that an IPv6 one stands for: mapped, translated (64:ff9b::/96), or 6to4.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let joined = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(joined(high, low)),
        [0x2002, high, low, ..] => Some(joined(high, low)),
        _ => address.to_ipv4_mapped(),
    }
}

/// Reads an endpoint's URL; says what is wrong with it. A name is looked at when it is resolved, each time.
pub fn parse_url(text: &str, allow_private: bool) -> Result<Url, String> {
    if text.len() > MAX_URL {
        return Err(format!("must have at most {MAX_URL} bytes"));
    }
    let url = Url::parse(text).map_err(|error| format!("must be a URL such as https://example.com/hooks: {error}"))?;
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        "http" => return Err("must begin with https://".to_owned()),
        other => return Err(format!("must begin with https://, not {other}:")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a name or a password; deliveries are signed instead".to_owned());
    }
    let host = url.host_str().unwrap_or_default();
    if host.is_empty() {
        return Err("must name a host".to_owned());
    }
    if let Some(address) = literal(host).filter(|address| !allow_private && !is_public(*address)) {
        return Err(Blocked { host: host.to_owned(), address }.to_string());
    }
    Ok(url)
}

/// The address that a host is, if it is not a name.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

/// Resolves names for connections, and lets none through that leads to an address that is not public: what a name meant
/// when its endpoint was made says nothing of what it means now.
#[derive(Debug, Clone, Copy)]
pub struct PublicResolver {
    pub allow_private: bool,
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let refused = addresses.iter().map(SocketAddr::ip).find(|address| !allow_private && !is_public(*address));
            match refused {
                Some(address) => Err(Blocked { host, address }.into()),
                None => Ok(Box::new(addresses.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_let_through() {
        for refused in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.254",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(refused.parse().expect("an address")), "{refused}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "2606:4700::1111",
            "2a00:1450:4001::200e",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
    }

    #[test]
    fn a_url_in_disguise_is_seen_through() {
        for refused in [
            "http://example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "https://user@example.com/",
            "https://user:word@example.com/",
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.0.0.1/",
            "https://0177.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://169.254.169.254/latest/meta-data",
            "https://%31%32%37.0.0.1/",
            "https:///",
            "no url",
        ] {
            assert!(parse_url(refused, false).is_err(), "{refused}");
        }
        assert!(parse_url("https://example.com:8443/hooks?x=1", false).is_ok());
        assert!(parse_url("http://127.0.0.1:9000/", true).is_ok());
    }

    #[tokio::test]
    async fn a_name_that_leads_home_is_not_resolved() {
        let resolve = |allow_private| PublicResolver { allow_private }.resolve("localhost".parse().expect("a name"));
        let refused = resolve(false).await.err().expect("refused");
        assert!(refused.downcast_ref::<Blocked>().is_some(), "{refused}");
        assert!(resolve(true).await.is_ok());
    }
}
