//! TLS to a real Postgres: `sslmode` and `sslrootcert` mean what they mean to libpq.

#[path = "support/test_folder.rs"]
mod test_folder;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use subledger::embedded_postgres::{Durability, EmbeddedPostgres};
use subledger::store::connect::Database;
use test_folder::TestFolder;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// Gives the server a certificate for `localhost` alone, in place of none.
async fn turn_on_tls(postgres: &EmbeddedPostgres, issuer: &CertifiedIssuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    let owner = Database::parse(&postgres.url()).expect("an address").connect_as_owner().await.expect("a connection");
    let folder: String = owner.query_one("show data_directory", &[]).await.expect("a folder").get(0);
    let folder = Path::new(&folder);
    let server = fs::metadata(folder).expect("a folder");
    for (name, pem) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
        let path = folder.join(name);
        fs::write(&path, pem).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("private");
        chown(&path, Some(server.uid()), Some(server.gid())).expect("the server's own");
    }
    owner.batch_execute("alter system set ssl = on").await.expect("set");
    owner.batch_execute("select pg_reload_conf()").await.expect("asked");
    // The reload is told, not awaited.
    while owner.query_one("show ssl", &[]).await.expect("a setting").get::<_, String>(0) != "on" {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Connects both ways there are, and answers whether they are encrypted.
async fn is_encrypted(url: &str) -> Result<bool, String> {
    const QUESTION: &str = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let database = Database::parse(url).map_err(|error| error.to_string())?;
    let own = database.connect().await.map_err(|error| error.to_string())?;
    let own: bool = own.query_one(QUESTION, &[]).await.map_err(|error| error.to_string())?.get(0);
    let pool = database.pool(1).map_err(|error| error.to_string())?;
    let pooled = pool.get().await.map_err(|error| error.to_string())?;
    let pooled: bool = pooled.query_one(QUESTION, &[]).await.map_err(|error| error.to_string())?.get(0);
    assert_eq!(own, pooled);
    Ok(own)
}

#[tokio::test]
async fn sslmode_means_what_it_means_to_libpq() {
    let folder = TestFolder::new("tls");
    let postgres = EmbeddedPostgres::start(&folder.0, Durability::Volatile).await.expect("a server");
    let plain = postgres.url();
    assert_eq!(is_encrypted(&plain).await, Ok(false), "the server cannot yet");
    assert!(is_encrypted(&format!("{plain}?sslmode=require")).await.is_err());

    let issuer = authority();
    turn_on_tls(&postgres, &issuer).await;
    let file = |name: &str, pem: String| {
        let path = folder.0.join(name);
        fs::write(&path, pem).expect("written");
        path.display().to_string()
    };
    let trusted = file("trusted.pem", issuer.pem());
    let stranger = file("stranger.pem", authority().pem());
    let by_address = plain;
    assert!(by_address.contains("@127.0.0.1:"), "{by_address}");
    let by_name = by_address.replace("@127.0.0.1:", "@localhost:");

    assert_eq!(is_encrypted(&by_address).await, Ok(true), "if it can, it does");
    for (mode, encrypted) in [("disable", false), ("prefer", true), ("require", true)] {
        assert_eq!(is_encrypted(&format!("{by_address}?sslmode={mode}")).await, Ok(encrypted), "{mode}");
    }
    for (url, mode, root, is_accepted) in [
        (&by_name, "verify-full", &trusted, true),
        (&by_name, "verify-ca", &trusted, true),
        (&by_address, "verify-ca", &trusted, true),
        (&by_address, "verify-full", &trusted, false),
        (&by_name, "verify-full", &stranger, false),
        (&by_name, "verify-ca", &stranger, false),
        (&by_name, "require", &stranger, false),
        (&by_name, "prefer", &stranger, true),
    ] {
        let outcome = is_encrypted(&format!("{url}?sslmode={mode}&sslrootcert={root}")).await;
        assert_eq!(outcome.is_ok(), is_accepted, "{url} {mode} {root}: {outcome:?}");
    }
    // Nobody vouches for it but an authority of our own.
    assert!(is_encrypted(&format!("{by_name}?sslmode=verify-full")).await.is_err());
    postgres.stop().await.expect("stopped");
}
