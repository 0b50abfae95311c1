//! Flags and variables that say where the configuration is, or are the configuration.

use std::{cell::RefCell, net::SocketAddr, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};

use crate::config::{self, Given, Loaded, Problems, Secret, Settings, Sources};

/// One option of the configuration as a flag and a variable.
struct Flag {
    name: &'static str,
    variable: &'static str,
    /// `section.key`; description, default and range are those of the option.
    option: &'static str,
}

const fn flag(name: &'static str, variable: &'static str, option: &'static str) -> Flag {
    Flag {
        name,
        variable,
        option,
    }
}

/// Where the proxy can be asked; the one flag that `status` and `explain` have, too.
const ADMIN: Flag = flag("admin", "PGSPLIT_ADMIN", "admin.address");

const FLAGS: [Flag; 26] = [
    flag("listen", "PGSPLIT_LISTEN", "listen.address"),
    flag(
        "unix-socket-dir",
        "PGSPLIT_UNIX_SOCKET_DIR",
        "listen.unix_socket_dir",
    ),
    flag("max-clients", "PGSPLIT_MAX_CLIENTS", "listen.max_clients"),
    flag("workers", "PGSPLIT_WORKERS", "listen.workers"),
    flag("trust", "PGSPLIT_TRUST", "listen.trust"),
    flag(
        "drain-timeout",
        "PGSPLIT_DRAIN_TIMEOUT",
        "listen.drain_timeout",
    ),
    flag("tls-mode", "PGSPLIT_TLS_MODE", "listen.tls.mode"),
    flag("tls-cert", "PGSPLIT_TLS_CERT", "listen.tls.cert"),
    flag("tls-key", "PGSPLIT_TLS_KEY", "listen.tls.key"),
    flag(
        "tls-client-ca",
        "PGSPLIT_TLS_CLIENT_CA",
        "listen.tls.client_ca",
    ),
    flag(
        "console-users",
        "PGSPLIT_CONSOLE_USERS",
        "admin.console_users",
    ),
    flag("pool-mode", "PGSPLIT_POOL_MODE", "pool.mode"),
    flag("pool-size", "PGSPLIT_POOL_SIZE", "pool.max_size"),
    flag(
        "acquire-timeout",
        "PGSPLIT_ACQUIRE_TIMEOUT",
        "pool.acquire_timeout",
    ),
    flag("routing-mode", "PGSPLIT_ROUTING_MODE", "routing.mode"),
    flag("consistency", "PGSPLIT_CONSISTENCY", "routing.consistency"),
    flag("balance", "PGSPLIT_BALANCE", "routing.balance"),
    flag("max-lag", "PGSPLIT_MAX_LAG", "routing.max_lag"),
    flag(
        "max-lag-bytes",
        "PGSPLIT_MAX_LAG_BYTES",
        "routing.max_lag_bytes",
    ),
    flag(
        "wait-for-replica",
        "PGSPLIT_WAIT_FOR_REPLICA",
        "routing.wait_for_replica",
    ),
    flag(
        "read-fallback",
        "PGSPLIT_READ_FALLBACK",
        "routing.read_fallback",
    ),
    flag("zone", "PGSPLIT_ZONE", "routing.zone"),
    flag("failover-mode", "PGSPLIT_FAILOVER_MODE", "failover.mode"),
    flag("hold", "PGSPLIT_HOLD", "failover.hold"),
    flag("log-level", "PGSPLIT_LOG_LEVEL", "log.level"),
    flag("log-format", "PGSPLIT_LOG_FORMAT", "log.format"),
];

/// Everything that says what the configuration is.
#[derive(Clone, Debug, Args)]
pub(super) struct ConfigArgs {
    /// Configuration file, TOML
    #[arg(long, short, value_name = "FILE", env = "PGSPLIT_CONFIG")]
    config: Option<PathBuf>,

    /// Without a file: a node, as postgres://user:password@host:port/database?sslmode=…; one for
    /// each, or separated by commas. The first one's user, password and database are those of all
    /// nodes, and those that clients connect with
    #[arg(
        long = "node",
        value_name = "URL",
        env = "PGSPLIT_NODES",
        hide_env_values = true,
        value_delimiter = ','
    )]
    nodes: Vec<String>,

    /// Without a file: the user's password, instead of in the URL. Others on this machine can see
    /// command lines: better the variable or --password-file
    #[arg(
        long,
        value_name = "TEXT",
        env = "PGSPLIT_PASSWORD",
        hide_env_values = true
    )]
    password: Option<String>,

    /// Without a file: a file with the user's password in its first line
    #[arg(long, value_name = "FILE", env = "PGSPLIT_PASSWORD_FILE")]
    password_file: Option<PathBuf>,

    #[command(flatten)]
    admin: AdminArg,

    #[command(flatten)]
    options: OptionArgs,
}

/// Where a running proxy can be asked.
#[derive(Clone, Debug, Args)]
pub(super) struct AskArgs {
    /// The proxy's configuration file, for the address of its admin API
    #[arg(long, short, value_name = "FILE", env = "PGSPLIT_CONFIG")]
    config: Option<PathBuf>,

    #[command(flatten)]
    admin: AdminArg,
}

/// `--admin`.
#[derive(Clone, Debug)]
struct AdminArg(Option<Given>);

/// All [`FLAGS`] that were given.
#[derive(Clone, Debug)]
struct OptionArgs(Vec<Given>);

impl Flag {
    fn arg(&self) -> Arg {
        let arg = Arg::new(self.name)
            .long(self.name)
            .value_name("VALUE")
            .env(self.variable)
            .help(self.help());
        // One or a list.
        if matches!(self.option, "listen.address" | "admin.console_users") {
            arg.action(ArgAction::Append)
        } else {
            arg
        }
    }

    /// What the configuration says of the option.
    fn help(&self) -> String {
        let (section, key) = self.option.rsplit_once('.').unwrap_or_default();
        let doc = config::sections()
            .iter()
            .filter(|known| known.name == section)
            .flat_map(|known| known.keys)
            .find(|known| known.name == key)
            .map(|known| known.doc.concat());
        let default = Settings::default()
            .rows()
            .into_iter()
            .find(|row| row.key == self.option)
            .map(|row| format!(", default {}", row.default));
        format!(
            "{} [{}{}]",
            doc.unwrap_or_default().trim(),
            self.option,
            default.unwrap_or_default()
        )
    }

    fn given(&self, matches: &ArgMatches) -> Option<Given> {
        let values: Vec<String> = matches.get_many(self.name)?.cloned().collect();
        let source = match matches.value_source(self.name) {
            Some(ValueSource::EnvVariable) => self.variable.to_owned(),
            _ => format!("--{}", self.name),
        };
        Some(Given {
            option: self.option,
            value: values.join(","),
            source,
        })
    }
}

impl Args for AdminArg {
    fn augment_args(command: Command) -> Command {
        command.arg(ADMIN.arg())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for AdminArg {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(ADMIN.given(matches)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for OptionArgs {
    fn augment_args(command: Command) -> Command {
        command
            .next_help_heading("Options of the configuration")
            .args(FLAGS.iter().map(Flag::arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OptionArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(
            FLAGS
                .iter()
                .filter_map(|flag| flag.given(matches))
                .collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl AdminArg {
    /// The address, or that of a proxy that was started without saying.
    fn address(&self) -> Result<Option<SocketAddr>, String> {
        match &self.0 {
            None => Ok(Settings::default().admin.address),
            Some(given) if given.value.is_empty() => Ok(None),
            Some(given) => given.value.parse().map(Some).map_err(|_error| {
                format!(
                    "{}: must be an IP address and a port such as \"127.0.0.1:9432\", not {:?}",
                    given.source, given.value
                )
            }),
        }
    }
}

impl AskArgs {
    /// Where the admin API is.
    ///
    /// # Errors
    /// What is wrong, or that the proxy has none.
    pub(super) fn address(&self) -> Result<SocketAddr, String> {
        // The flag alone will do: the file may need variables that only the proxy has.
        let address = match (&self.config, &self.admin.0) {
            (None, _) | (_, Some(_)) => self.admin.address()?,
            (Some(file), None) => {
                let sources = Sources {
                    file: Some(file.clone()),
                    ..Sources::default()
                };
                let loaded = config::load(&sources, &environment);
                loaded
                    .map_err(|problems| problems.to_string())?
                    .settings
                    .admin
                    .address
            }
        };
        address.ok_or_else(|| "the admin API is switched off: its address is empty".to_owned())
    }
}

/// Variables that are no flag's.
const OTHER_VARIABLES: [&str; 5] = [
    "PGSPLIT_CONFIG",
    "PGSPLIT_NODES",
    "PGSPLIT_PASSWORD",
    "PGSPLIT_PASSWORD_FILE",
    "PGSPLIT_PG_BIN",
];

/// One sentence for each variable that looks like ours and is not known: it would be ignored
/// silently. `asked` are those that the configuration file names.
fn strangers(set: impl Iterator<Item = String>, asked: &[String]) -> Vec<String> {
    let known: Vec<&str> = FLAGS
        .iter()
        .chain([&ADMIN])
        .map(|flag| flag.variable)
        .chain(OTHER_VARIABLES)
        .collect();
    let mut strange = Vec::new();
    for name in set {
        // Kubernetes gives every container PGSPLIT_PORT, PGSPLIT_SERVICE_HOST and so on, for a
        // service named pgsplit.
        let of_services = name.contains("_PORT") || name.contains("_SERVICE_");
        if !name.starts_with("PGSPLIT_")
            || of_services
            || known.contains(&name.as_str())
            || asked.contains(&name)
        {
            continue;
        }
        let nearest = known
            .iter()
            .map(|known| (strsim::osa_distance(&name, known), known))
            .min();
        strange.push(match nearest {
            Some((distance, known)) if distance <= 4 => {
                format!("the variable {name} is not known; did you mean {known}?")
            }
            _ => format!("the variable {name} is not known: it does nothing"),
        });
    }
    strange.sort();
    strange
}

/// A variable of this process.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl ConfigArgs {
    /// A file or nodes are given: there is a configuration.
    pub(super) fn given(&self) -> bool {
        self.config.is_some() || !self.nodes.is_empty()
    }

    /// Where the proxy can be asked, as far as the command line says.
    ///
    /// # Errors
    /// That isn't an address.
    pub(super) fn admin(&self) -> Result<Option<SocketAddr>, String> {
        self.admin.address()
    }

    /// How messages call the configuration.
    pub(super) fn name(&self) -> String {
        self.config.as_ref().map_or_else(
            || "command line".to_owned(),
            |file| file.display().to_string(),
        )
    }

    /// Reads the configuration, each time anew.
    ///
    /// # Errors
    /// All mistakes in it.
    pub(super) fn load(&self) -> Result<Loaded, Problems> {
        let options = self
            .admin
            .0
            .iter()
            .chain(&self.options.0)
            .cloned()
            .collect();
        let sources = Sources {
            file: self.config.clone(),
            nodes: self.nodes.clone(),
            password: self
                .password
                .clone()
                .filter(|text| !text.is_empty())
                .map(Secret),
            password_file: self.password_file.clone(),
            options,
        };
        let asked = RefCell::new(Vec::new());
        let mut loaded = config::load(&sources, &|name| {
            asked.borrow_mut().push(name.to_owned());
            environment(name)
        })?;
        let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let strange = strangers(set, &asked.into_inner());
        loaded.warnings.extend(strange);
        Ok(loaded)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        config: ConfigArgs,
    }

    fn load(line: &[&str]) -> Result<Settings, String> {
        let line =
            Line::try_parse_from([&["pgsplit"], line].concat()).map_err(|e| e.to_string())?;
        line.config
            .load()
            .map(|loaded| loaded.settings)
            .map_err(|problems| problems.to_string())
    }

    #[test]
    fn every_flag_is_an_option_with_a_description() {
        let known: Vec<String> = config::sections()
            .iter()
            .flat_map(|section| {
                section
                    .keys
                    .iter()
                    .map(|key| format!("{}.{}", section.name, key.name))
            })
            .collect();
        for flag in FLAGS.iter().chain([&ADMIN]) {
            assert!(
                known.iter().any(|option| option == flag.option),
                "{}",
                flag.option
            );
            assert!(flag.help().len() > 20, "{}: {}", flag.name, flag.help());
            let variable = format!("PGSPLIT_{}", flag.name.replace('-', "_").to_uppercase());
            assert_eq!(flag.variable, variable);
        }
    }

    #[test]
    fn flags_make_a_configuration_without_a_file() {
        let settings = load(&[
            "--listen",
            "127.0.0.1:1",
            "--listen",
            "127.0.0.1:2",
            "--node",
            "postgres://app:p%2Cw@10.0.0.1/app,postgres://10.0.0.2",
            "--node",
            "postgres://10.0.0.3",
            "--pool-size",
            "7",
            "--max-lag",
            "3s",
            "--admin",
            "",
        ])
        .unwrap();
        assert_eq!(settings.listen.addresses.len(), 2);
        assert_eq!(settings.nodes.len(), 3);
        assert_eq!(settings.users[0].password, Some(Secret("p,w".into())));
        assert_eq!(settings.databases[0].pool.max_size, 7);
        assert_eq!(settings.databases[0].routing.max_lag.as_secs(), 3);
        assert_eq!(settings.admin.address, None);
    }

    #[test]
    fn a_misspelt_variable_is_not_ignored_silently() {
        let set = [
            "HOME",
            "PGSPLIT_MAX_LAG",
            "PGSPLIT_MAX_LAGG",
            "PGSPLIT_SERVICE_HOST",
            "PGSPLIT_PORT_6432_TCP",
            "PGSPLIT_OF_THE_FILE",
            "PGSPLIT_SOMETHING_ELSE",
        ];
        let set = set.into_iter().map(str::to_owned);
        assert_eq!(
            strangers(set, &["PGSPLIT_OF_THE_FILE".to_owned()]),
            [
                "the variable PGSPLIT_MAX_LAGG is not known; did you mean PGSPLIT_MAX_LAG?",
                "the variable PGSPLIT_SOMETHING_ELSE is not known: it does nothing",
            ]
        );
    }

    #[test]
    fn a_mistake_names_the_flag() {
        let said = load(&["--node", "postgres://a:b@h", "--pool-size", "0"]).unwrap_err();
        assert_eq!(said, "--pool-size: must be between 1 and 10000, not 0");
        let said = load(&["--node", "postgres://a:b@h", "--password", "c"]).unwrap_err();
        assert_eq!(
            said,
            "--node, URL 1: has a password, which is also given beside it"
        );
    }
}
