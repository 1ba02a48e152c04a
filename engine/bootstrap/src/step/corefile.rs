//! What a Corefile uses. From CoreDNS 1.8 to 1.14 no plugin of those that it comes with was removed or takes its options otherwise, so
//! a Corefile stays as it is; what it does not come with somebody built into an image of their own.

/// Plugins that CoreDNS itself has had from 1.11 on, and directives of its server.
const KNOWN: &[&str] = &[
    "acl",
    "any",
    "auto",
    "autopath",
    "azure",
    "bind",
    "bufsize",
    "cache",
    "cancel",
    "chaos",
    "clouddns",
    "debug",
    "dns64",
    "dnssec",
    "dnstap",
    "erratic",
    "errors",
    "etcd",
    "file",
    "forward",
    "geoip",
    "grpc",
    "header",
    "health",
    "hosts",
    "k8s_external",
    "kubernetes",
    "loadbalance",
    "local",
    "log",
    "loop",
    "metadata",
    "minimal",
    "nsid",
    "pprof",
    "prometheus",
    "ready",
    "reload",
    "rewrite",
    "root",
    "route53",
    "secondary",
    "sign",
    "template",
    "timeouts",
    "tls",
    "trace",
    "transfer",
    "tsig",
    "view",
    "whoami",
];

/// Plugins in `corefile` that CoreDNS does not come with, in order; `import`, which may bring any, among them.
pub(crate) fn unknown_plugins(corefile: &str) -> Vec<String> {
    let mut unknown: Vec<String> = Vec::new();
    let mut depth = 0usize;
    for line in corefile.lines() {
        let words = words(line);
        // A line that closes blocks and says nothing else.
        let Some(first) = words.iter().find(|word| *word != "}") else {
            depth = depth.saturating_sub(words.len());
            continue;
        };
        let is_import = first == "import" && depth <= 1;
        let is_plugin = depth == 1 && !KNOWN.contains(&first.as_str());
        if (is_import || is_plugin) && !unknown.contains(first) {
            unknown.push(first.clone());
        }
        for word in &words {
            match word.as_str() {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
    unknown
}

/// Words of a line: separated by blanks, together between quotation marks, up to a comment.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut escaped) = (false, false);
    for letter in line.chars() {
        if escaped {
            word.push(letter);
            escaped = false;
        } else if letter == '\\' && quoted {
            escaped = true;
        } else if letter == '"' {
            quoted = !quoted;
        } else if letter == '#' && word.is_empty() && !quoted {
            break;
        } else if letter.is_whitespace() && !quoted {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
        } else {
            word.push(letter);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
