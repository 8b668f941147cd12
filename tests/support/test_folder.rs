//! A folder for an embedded server of a test's own.

use std::{env, fs, path::PathBuf};

/// Not made yet; removed at the end, with the data that lie elsewhere.
pub struct TestFolder(pub PathBuf);

impl TestFolder {
    pub fn new(name: &str) -> Self {
        let id = uuid::Uuid::new_v4().simple();
        Self(env::temp_dir().join(format!("subledger-{name}-{id}")))
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        if let Ok(location) = fs::read_to_string(self.0.join("location")) {
            let _ = fs::remove_dir_all(location.trim());
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}
