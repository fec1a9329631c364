//! `packhouse config check` passes nothing that can't work.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::common::{is_root, noise, skip};
use crate::words::{run, run_with};

struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::fs::write(dir.path().join("users"), format!("alice:{}\n", bcrypt::hash("pw", 4).unwrap()))
            .unwrap();
        std::fs::set_permissions(dir.path().join("users"), PermissionsExt::from_mode(0o640)).unwrap();
        Self { dir }
    }

    /// What the check says of a settings file with these lines.
    fn check(&self, lines: &str) -> (Option<i32>, String) {
        let dir = self.dir.path();
        let file = dir.join("p.toml");
        let own = format!("path = \"{0}/data\"\nhtpasswd-file = \"{0}/users\"\n", dir.display());
        std::fs::write(&file, format!("{own}{}", lines.replace("DIR", dir.to_str().unwrap()))).unwrap();
        run(&["config", "check", "--config", file.to_str().unwrap()])
    }
}

#[test]
fn what_cannot_work_is_an_error_and_what_is_odd_a_warning() {
    let site = Site::new();
    let (code, said) = site.check("");
    assert_eq!((code, said.as_str()), (Some(0), "the settings are right\n"));
    let data = site.dir.path().join("data/alice/laptop/data/00");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join(format!("00{}", "a".repeat(62))), noise(5000, 1)).unwrap();
    std::fs::write(site.dir.path().join("acl.toml"), "[shared]\ncarol = \"Read\"\n").unwrap();
    let twice = "[\"/shared\"]\nalice = \"Read\"\n[shared]\nalice = \"Modify\"\n";
    std::fs::write(site.dir.path().join("twice.toml"), twice).unwrap();
    for (lines, code, wanted) in [
        (
            "append-only = true\n[users.alice]\nrights = { \"/**\" = \"full\" }\n",
            0,
            "warning: append-only caps the right `full` of user alice",
        ),
        (
            "[users.bob]\nrights = { \"/**\" = \"read\" }\n",
            0,
            "warning: [users.bob]: the password file has no such user",
        ),
        (
            "max-size = \"1KiB\"\n",
            0,
            "warning: the quota of all repositories together is 1024 bytes on disk, and 16384 are stored already",
        ),
        ("[users.alice]\nmax-size = 10\n", 0, "warning: the quota of user alice is 10 bytes"),
        (
            "[repos.\"/alice/laptop/\"]\nmax-size = 10\n",
            0,
            "warning: the quota of /alice/laptop/ is 10 bytes",
        ),
        ("max-size = \"100G\"\n", 0, "warning: "),
        ("trusted-proxy = \"0.0.0.0/0\"\n", 0, "warning: trusted-proxy = 0.0.0.0/0: everybody is believed"),
        ("trusted-proxy = \"::/0\"\n", 0, "warning: trusted-proxy = ::/0"),
        ("trusted-proxy = \"127.0.0.1\"\n", 0, "name the header that the proxies set with proxy-header"),
        ("proxy-header = \"Forwarded\"\n", 0, "proxy-header has no effect without trusted-proxy"),
        ("proxy-header = \"a b\"\n", 78, "write the name of a header"),
        (
            "proxy-header = \"X-A\"\nproxy-auth-username = \"x-a\"\ntrusted-proxy = \"127.0.0.1\"\n",
            78,
            "proxy-auth-username and proxy-header are the same header",
        ),
        ("log = \"DIR/no/such/log\"\n", 78, "error: log: "),
        ("state-dir = \"DIR/no/such\"\n", 78, "error: state-dir: there is no folder"),
        ("state-dir = \"DIR/users\"\n", 78, "error: state-dir: "),
        ("acl-file = \"DIR/no-acl\"\n", 78, "error: acl-file: "),
        ("user = \"no-such-user\"\n", 78, "there is no such user"),
        ("cpus = \"4000\"\n", 78, "4000"),
        ("listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\n", 78, "error: listen: 127.0.0.1:1 is given twice"),
        ("listen = \"127.0.0.1:1\"\nadmin-listen = \"127.0.0.1:1\"\n", 78, "is given twice"),
        ("listen = \"unix:DIR/no/such/socket\"\n", 78, "Make the folder of the socket"),
        ("listen = \"unix:DIR/users\"\n", 78, "remove the file if it is no socket"),
        (&format!("listen = \"unix:/tmp/{}\"\n", "x".repeat(110)), 78, "at most 107 bytes"),
        ("listen = \"192.0.2.1:8000\"\n", 78, "It is no address of this machine"),
        ("listen = \"no-such-host.invalid:8000\"\n", 78, "error: cannot listen on no-such-host.invalid"),
        ("max-config-size = 0\n", 78, "error: max-config-size is 0: no repository can be made"),
        ("max-data-size = 0\n", 78, "error: max-data-size is 0"),
        ("min-free = \"8000PiB\"\n", 78, "error: min-free: the reserve of"),
        ("shared-folder = true\nmax-size = \"1TiB\"\n", 0, "warning: shared-folder: quotas are not exact"),
        ("[repos.\"/*/\"]\nmax-size = 10\n", 78, "names one repository, and no pattern"),
        (
            "private-repos = true\n[users.alice]\nrights = { \"/bob/**\" = \"read\" }\n",
            0,
            "warning: private-repos lets user alice reach nothing but /alice/: the right on /bob/**/ has no effect",
        ),
        ("acl-file = \"DIR/acl.toml\"\n", 0, "warning: acl-file: the password file has no user carol"),
        (
            "acl-file = \"DIR/acl.toml\"\n",
            0,
            "warning: acl-file: every user has the right `full` to repositories without a table: /alice/laptop/. ",
        ),
        (
            "acl-file = \"DIR/twice.toml\"\n",
            78,
            "twice.toml: `shared`: this repository has a table by another",
        ),
        (
            "[users.alice]\nrights = { \"/a/**\" = \"full\", \"/*/secret\" = \"none\" }\n",
            0,
            "warning: user alice: for /a/secret/ the right `full` on /a/**/ counts, and not `none` on /*/secret/: ",
        ),
        (
            "[users.\"*\"]\nrights = { \"/{user}/**\" = \"full\", \"/*/old\" = \"read\" }\n",
            0,
            "warning: user *: for /{user}/old/ the right `full` on /{user}/**/ counts, and not `read` on /*/old/: ",
        ),
        (
            "[users.Alice]\nrights = { \"/**\" = \"read\" }\n",
            0,
            "warning: users Alice, alice: these names differ by letter case or Unicode form alone",
        ),
        (
            "[users.data]\nrights = { \"/{user}/**\" = \"full\" }\n",
            0,
            "warning: user data: no repository can lie in a folder of this name",
        ),
        (
            "[repos.\"/a\"]\nmax-size = 10\n[repos.\"/a/\"]\nmax-size = 20\n",
            78,
            "this repository has a table by another name",
        ),
        (
            "[users.alice]\nrights = { \"/*/*/*/*/*/*/*/*/*/*/*/*/*\" = \"full\" }\n",
            78,
            "a repository's path has at most 12 folders",
        ),
    ] {
        let (got, said) = site.check(lines);
        assert!(got == Some(code) && said.contains(wanted), "{lines}: {got:?} {said}");
    }
    let users = site.dir.path().join("users");
    std::fs::set_permissions(&users, PermissionsExt::from_mode(0o644)).unwrap();
    let (code, said) = site.check("");
    assert!(code == Some(0) && said.contains("this password file is open to all users"), "{said}");
    // What others may read, and must not write.
    let data = site.dir.path().join("data");
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o777)).unwrap();
    let (code, said) = site.check("");
    assert!(code == Some(0) && said.contains("all users can write to this data folder"), "{said}");
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o755)).unwrap();
    assert!(!site.check("").1.contains("all users can write"));
    // The path itself.
    for (path, wanted) in
        [("/no/such/folder/at/all", "is its disk mounted?"), ("/etc/passwd", "is no folder")]
    {
        let (code, said) = run(&["config", "check", "--no-auth", "--path", path]);
        assert!(code == Some(78) && said.contains(wanted), "{path}: {code:?} {said}");
    }
    let empty = site.dir.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let (code, said) =
        run(&["config", "check", "--path", "/tmp", "--htpasswd-file", empty.to_str().unwrap()]);
    assert!(code == Some(0) && said.contains("has no user that can log in"), "{code:?} {said}");
}

#[test]
fn it_is_the_service_user_who_must_be_able_to_read_and_write() {
    if !is_root() {
        return skip("another user needs root");
    }
    let site = Site::new();
    std::fs::set_permissions(site.dir.path().join("users"), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(site.dir.path().join("data"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(site.check("").0, Some(0), "root can");
    let (code, said) = site.check("user = \"nobody\"\n");
    assert_eq!(code, Some(78), "{said}");
    for wanted in ["users: Permission denied", "path: ", "can't be used: Permission denied"] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    for (name, owner) in [("users", "nobody"), ("data", "nobody")] {
        assert!(Command::new("chown").arg(owner).arg(site.dir.path().join(name)).status().unwrap().success());
    }
    let (code, said) = site.check("user = \"nobody\"\n");
    assert_eq!(code, Some(0), "{said}");
}

/// `PACKHOUSE_APPENDONLY=true` must not be a server that lets clients delete.
#[test]
fn a_misspelt_variable_stops_the_start_and_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for command in [&["config", "check"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        let args = [command, &["--no-auth", "--path", path]].concat();
        for (name, meant) in [
            ("PACKHOUSE_APPENDONLY", "did you mean PACKHOUSE_APPEND_ONLY?"),
            ("PACKHOUSE_LISTENN", "did you mean PACKHOUSE_LISTEN?"),
            ("PACKHOUSE_XYZ", "is no setting"),
        ] {
            let (code, said) = run_with(&args, &[(name, "true")], "");
            assert!(code == Some(78) && said.contains(meant), "{name}: {code:?} {said}");
        }
    }
    // Empty ones, as compose files make them, and those of Kubernetes are none of it.
    let env = [
        ("PACKHOUSE_LOG", ""),
        ("PACKHOUSE_MAX_SIZE", ""),
        ("PACKHOUSE_CONFIG", ""),
        ("PACKHOUSE_SERVICE_HOST", "10.0.0.1"),
        ("PACKHOUSE_SERVICE_PORT_HTTP", "8000"),
        ("PACKHOUSE_PORT", "tcp://10.0.0.1:8000"),
        ("PACKHOUSE_PORT_8000_TCP_ADDR", "10.0.0.1"),
    ];
    let (code, said) = run_with(&["config", "check", "--no-auth", "--path", path], &env, "");
    assert_eq!((code, said.as_str()), (Some(0), "the settings are right\n"));
}

/// Line by line: what the sample shows would work.
#[test]
fn every_example_of_the_sample_is_right() {
    let (_, sample) = run(&["config", "sample"]);
    let mut examples = 0;
    for line in sample.lines().take_while(|line| !line.contains("[users.")) {
        let Some(example) =
            line.strip_prefix('#').filter(|line| line.contains(" = ") && !line.starts_with([' ', '#']))
        else {
            continue;
        };
        let name = example.split(' ').next().unwrap();
        // What needs another setting has it.
        let more = match name {
            "tls-cert" => "tls = true\ntls-key = \"/k\"\n",
            "tls-key" => "tls = true\ntls-cert = \"/c\"\n",
            "tls-client-crl" | "tls-client-optional" => "tls = true\ntls-client-ca = \"/c\"\n",
            "tls-client-ca" | "hsts" => "tls = true\n",
            _ => "",
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.toml");
        let path = if name == "path" { "" } else { "path = \"/tmp\"\n" };
        std::fs::write(&file, format!("{path}{more}{example}\n")).unwrap();
        let (code, said) = run(&["config", "show", "--config", file.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{example}: {said}");
        examples += 1;
    }
    assert!(examples > 50, "{examples}");
    assert!(!sample.contains("cpu-profile"));
}
