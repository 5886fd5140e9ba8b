//! What whoever administers the server has to do where it refuses us.

use std::error::Error;

use super::super::url::PostgresUrl;
use super::trouble::CannotCreate;

/// Statements for psql, as a superuser, after which the error does not come again; none where none help. Comments say what is
/// to be chosen.
pub(in crate::store) fn remedy(url: &PostgresUrl, error: &(dyn Error + 'static)) -> Vec<String> {
    let PostgresUrl { user, database, .. } = url;
    let (mut causes, mut next) = (Vec::new(), Some(error));
    while let Some(cause) = next {
        causes.push(cause);
        next = cause.source();
    }
    let code = causes.iter().find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>()?.code());
    let create = format!(
        "CREATE DATABASE \"{database}\" OWNER \"{user}\" ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;"
    );
    // The driver asks for a password before the server says anything of the role.
    let lacks_password = causes.iter().any(|cause| cause.to_string().contains("password missing"));
    // No role or password helps there.
    if causes.iter().any(|cause| cause.to_string().contains("pg_hba.conf")) {
        return vec![
            "-- in pg_hba.conf of the server (SHOW hba_file), with the address of this host:".to_owned(),
            format!("--     host \"{database}\" \"{user}\" ADDRESS/32 scram-sha-256"),
            "SELECT pg_reload_conf();".to_owned(),
        ];
    }
    match code.map(tokio_postgres::error::SqlState::code).or(lacks_password.then_some("28P01")) {
        Some("42501") if causes.iter().any(|cause| cause.is::<CannotCreate>()) => vec![create],
        Some("42501") => vec![
            format!("\\connect \"{database}\""),
            format!("GRANT USAGE, CREATE ON SCHEMA public TO \"{user}\";"),
            format!("ALTER DATABASE \"{database}\" OWNER TO \"{user}\";"),
            format!(
                "-- the tables, where there are any: ALTER TABLE file OWNER TO \"{user}\"; and so dirty, hint, action, x509_cert"
            ),
        ],
        Some(code) if code.starts_with("28") => vec![
            format!("CREATE ROLE \"{user}\" LOGIN PASSWORD 'SECRET';"),
            format!("-- where it exists: ALTER ROLE \"{user}\" LOGIN PASSWORD 'SECRET';"),
            create,
            "-- the same SECRET in ~/.pgpass of who runs csync2: HOST:PORT:*:USER:SECRET (mode 0600)".to_owned(),
        ],
        _ => Vec::new(),
    }
}
