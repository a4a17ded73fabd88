//! Backups that were handed in for this node's enclave, until it has proven them or restored from them.

use ceremonies::ids::{CeremonyId, Hash};
use sqlx::Row;

use super::{Store, StoreError, failed};

impl Store {
    /// Keeps a backup for the enclave.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_released(&self, ceremony: &CeremonyId, object: &[u8]) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO released (digest, ceremony, object) VALUES ($1, $2, $3) ON CONFLICT (digest) DO NOTHING",
        )
        .bind(Hash::of_bytes(object).to_string())
        .bind(ceremony.as_str())
        .bind(object.to_vec())
        .execute(&self.pool)
        .await
        .map_err(failed("keep a released backup"))?;
        Ok(())
    }

    /// The backup with this digest, if it was handed in.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn released(&self, digest: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        let what = "read a released backup";
        let row = sqlx::query("SELECT object FROM released WHERE digest = $1")
            .bind(digest.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed(what))?;
        row.map(|row| row.try_get(0).map_err(failed(what))).transpose()
    }

    /// Forgets what was handed in for a ceremony.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn drop_released(&self, ceremony: &CeremonyId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM released WHERE ceremony = $1")
            .bind(ceremony.as_str())
            .execute(&self.pool)
            .await
            .map_err(failed("drop released backups"))?;
        Ok(())
    }
}
