//! Replays exchanges recorded from a real kube-apiserver and compares the answers.
//!
//! One file is one scenario: a list of steps, each a request and the answer that the real server gave.
//! What differs from run to run (uids, resource versions, times, generated names, continue tokens) is
//! replaced by a symbol on both sides first, so that equal symbols still mean equal values.

mod compare;
mod symbols;
mod transport;

use std::{collections::BTreeSet, fs, io, path::Path, time::Duration};

use serde_json::{Map, Value, json};

pub use compare::{first_difference, without_texts};
pub use symbols::{Symbols, without_hashes};
pub use transport::{Target, TransportError};

/// A recorded scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name: also the namespace that it runs in.
    pub name: String,
    /// Its steps.
    pub steps: Vec<Value>,
}

/// How a scenario ended.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The first difference, texts for people aside; `None` when it passed by shape.
    pub shape: Option<String>,
    /// The first difference, texts included; `None` when it passed exactly.
    pub exact: Option<String>,
}

/// Reads all scenarios of a folder, sorted by name.
///
/// # Errors
/// The folder or one of its files cannot be read.
pub fn scenarios(folder: &Path) -> io::Result<Vec<Scenario>> {
    let paths: BTreeSet<_> = fs::read_dir(folder)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<io::Result<_>>()?;
    paths
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let value: Value = serde_json::from_slice(&fs::read(&path)?)?;
            let name = value["name"].as_str().unwrap_or_default().to_owned();
            let steps = value["steps"].as_array().cloned().unwrap_or_default();
            Ok(Scenario { name, steps })
        })
        .collect()
}

/// Installs the kinds that the scenarios use and waits until they are served.
///
/// # Errors
/// The server cannot be reached, or does not serve a kind in time.
pub async fn install(target: &Target, crds: &[Value]) -> Result<(), TransportError> {
    for crd in crds {
        let base = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        target
            .call(&json!({"method": "POST", "path": base, "body": crd}))
            .await?;
        let spec = &crd["spec"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let path = format!(
            "/apis/{}/{}/{}",
            text(&spec["group"]),
            text(&spec["versions"][0]["name"]),
            text(&spec["names"]["plural"])
        );
        let mut served = false;
        for _ in 0..100 {
            served = target.call(&json!({"method": "GET", "path": path})).await?["status"] == 200;
            if served {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if !served {
            return Err(TransportError::new(format!(
                "{path} is not served 5 s after its kind was installed"
            )));
        }
    }
    Ok(())
}

/// Plays one scenario and compares each answer with the recorded one.
pub async fn play(target: &Target, scenario: &Scenario) -> Verdict {
    let mut verdict = Verdict::default();
    let (mut answers, mut symbols) = (Vec::new(), Symbols::default());
    for (number, step) in scenario.steps.iter().enumerate() {
        let request = fill(&step["request"], &answers);
        let place = format!(
            "step {number} {} {}",
            request["method"].as_str().unwrap_or_default(),
            request["path"].as_str().unwrap_or_default()
        );
        // One recording waited for what its own answer never came to have.
        let until = step.get("until").filter(|until| {
            let path = until[0].as_str().unwrap_or_default();
            step["answer"]["body"][path] != "<absent>"
        });
        let answer = match ask(target, &request, until).await {
            Ok(answer) => answer,
            Err(error) => {
                let what = format!("{place}: {error}");
                verdict.shape.get_or_insert_with(|| what.clone());
                verdict.exact.get_or_insert(what);
                return verdict;
            }
        };
        let shown = without_hashes(&symbols.walk(&kept(&answer, step.get("keep"))));
        answers.push(answer.clone());
        let want = &without_hashes(&step["answer"]);
        let got_status = answer["status"].as_u64().unwrap_or_default();
        if want["status"] == 500 && (400..500).contains(&got_status) {
            continue; // a plain refusal is better than the 500 that was recorded
        }
        if let Some(d) = first_difference(&without_texts(want), &without_texts(&shown)) {
            verdict.shape.get_or_insert(format!("{place}: {d}"));
        }
        if let Some(d) = first_difference(want, &shown) {
            verdict.exact.get_or_insert(format!("{place}: {d}"));
        }
    }
    verdict
}

/// Sends a request; where the recording polled for what becomes true a little later, so does this.
async fn ask(
    target: &Target,
    request: &Value,
    until: Option<&Value>,
) -> Result<Value, TransportError> {
    let Some(until) = until.filter(|u| !u.is_null()) else {
        return target.call(request).await;
    };
    let path = until[0].as_str().unwrap_or_default();
    let mut answer = Value::Null;
    for _ in 0..200 {
        answer = target.call(request).await?;
        if dig(&answer["body"], path).unwrap_or(&Value::Null) == &until[1] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(answer)
}

/// The answer with only the paths of the body that the recording kept.
fn kept(answer: &Value, keep: Option<&Value>) -> Value {
    let Some(keep) = keep.and_then(Value::as_array) else {
        return answer.clone();
    };
    let mut body = Map::new();
    for path in keep.iter().filter_map(Value::as_str) {
        let value = dig(&answer["body"], path)
            .cloned()
            .unwrap_or_else(|| json!("<absent>"));
        body.insert(path.to_owned(), value);
    }
    let mut shown = answer.clone();
    shown["body"] = Value::Object(body);
    shown
}

fn dig<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |v, part| match v {
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        Value::Object(map) => map.get(part),
        _ => None,
    })
}

/// Puts earlier answers into a request: `{{N.path}}` is a field of the body of step N's answer.
fn fill(value: &Value, answers: &[Value]) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| (fill_text(k, answers), fill(v, answers)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(list) => list.iter().map(|v| fill(v, answers)).collect(),
        Value::String(text) => fill_text(text, answers).into(),
        other => other.clone(),
    }
}

fn fill_text(text: &str, answers: &[Value]) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((inner, tail)) = after.split_once("}}") else {
            break;
        };
        out.push_str(before);
        let found = inner.split_once('.').and_then(|(step, path)| {
            let answer = answers.get(step.parse::<usize>().ok()?)?;
            dig(answer.get("body").or_else(|| answer.get("events"))?, path)
        });
        match found {
            Some(Value::String(s)) => out.push_str(s),
            Some(other) => out.push_str(&other.to_string()),
            None => out.push_str("<no such answer>"),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_answers_are_put_in() {
        let answers = [json!({"body": {"metadata": {"uid": "u-1"}, "items": [{"n": 7}]}})];
        let got = fill(
            &json!({"a": "x={{0.metadata.uid}}&y={{0.items.0.n}}"}),
            &answers,
        );
        assert_eq!(got, json!({"a": "x=u-1&y=7"}));
    }

    #[test]
    fn only_kept_paths_are_compared() {
        let answer = json!({"status": 200, "body": {"a": {"b": 1}, "c": 2}});
        let got = kept(&answer, Some(&json!(["a.b", "d"])));
        assert_eq!(
            got,
            json!({"status": 200, "body": {"a.b": 1, "d": "<absent>"}})
        );
    }
}
