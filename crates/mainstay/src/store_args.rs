//! Where the logs are when they are not in the state: the option that hub and `log` share.

use std::path::{Path, PathBuf};

use store::{Place, Server};

use crate::exit::{Exit, Failure};

#[derive(Debug, Clone, clap::Args)]
pub struct StoreArgs {
    /// File that names the Postgres which the logs are on, if not in the state:
    /// `postgres://USER:PASSWORD@HOST/DATABASE`
    #[arg(
        long,
        value_name = "FILE",
        env = "MAINSTAY_STORE_POSTGRES_URL_FILE",
        hide_env_values = true
    )]
    store_postgres_url_file: Option<PathBuf>,
}

impl StoreArgs {
    /// The file has a password in it: nothing here shows it.
    pub fn server(&self) -> Result<Option<Server>, Failure> {
        let Some(path) = &self.store_postgres_url_file else {
            return Ok(None);
        };
        let what = || format!("failed to use the connection string in {}", path.display());
        let url = std::fs::read_to_string(path)
            .map_err(|error| Failure::new(Exit::NotAllowed, what()).because(error))?;
        let server = Server::parse(&url)
            .map_err(|error| Failure::new(Exit::Usage, what()).because(error))?;
        Ok(Some(server))
    }

    /// Where a log lies whose directory in the state is this.
    pub fn place(&self, name: &str, dir: &Path) -> Result<Place, Failure> {
        let dir = dir.to_owned();
        let Some(server) = self.server()? else {
            return Ok(Place::Directory(dir));
        };
        let server = match name {
            "system" => server.beside("system").map_err(|error| {
                Failure::new(Exit::Usage, "the schema has no name").because(error)
            })?,
            _ => server,
        };
        Ok(Place::Server { server, dir })
    }
}
