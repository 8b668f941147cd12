//! The implementation of TLS that all of the process uses.

/// Installs it. HTTP clients take what is installed, and panic where nothing is; so whoever makes one, or opens a connection
/// first, calls this. The first call counts, and all install the same.
pub fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
