//! Bucket names made of the namespace and the workload's name.

use nex_protocol::id::{Namespace, WorkloadName};

/// Longest name of a stream in nats-server, less the prefix `OBJ_`.
const MAX_NAME: usize = 251;
/// Longest namespace and workload name, as `nex-protocol` admits them.
const MAX_NAMESPACE: usize = 64;
const MAX_WORKLOAD: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Namespace,
    Workload,
}

/// A checked template: whatever workload it is filled for, the result is a legal bucket name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

impl Template {
    /// `hs_${namespace}_${workload_name}_<suffix>`, as 0.2.7 names them.
    pub(crate) fn per_workload(suffix: &str) -> Self {
        let text = |text: &str| Part::Text(text.to_owned());
        Self(vec![text("hs_"), Part::Namespace, text("_"), Part::Workload, Part::Text(format!("_{suffix}"))])
    }

    /// Reads a template; upper and lower case of the placeholders are the same.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, behind) = after.split_once('}').ok_or_else(|| format!("'{text}' has a '${{' without its '}}'"))?;
            push_text(&mut parts, before);
            parts.push(match name.to_ascii_lowercase().as_str() {
                "namespace" => Part::Namespace,
                "workload_name" => Part::Workload,
                _ => return Err(format!("'{text}' has an unknown ${{{name}}}: expected ${{namespace}} or ${{workload_name}}")),
            });
            rest = behind;
        }
        push_text(&mut parts, rest);
        let template = Self(parts);
        template.check(text)?;
        Ok(template)
    }

    fn check(&self, text: &str) -> Result<(), String> {
        let mut longest = 0;
        for part in &self.0 {
            longest += match part {
                Part::Namespace => MAX_NAMESPACE,
                Part::Workload => MAX_WORKLOAD,
                Part::Text(part) if part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') => part.len(),
                Part::Text(_) => return Err(format!("'{text}' is not a bucket name: expected letters, digits, '-' and '_'")),
            };
        }
        match longest {
            0 => Err("an empty text is not a bucket name".to_owned()),
            1..=MAX_NAME => Ok(()),
            _ => Err(format!("'{text}' can become {longest} characters long; a bucket name has at most {MAX_NAME}")),
        }
    }

    /// The bucket's name for a workload.
    pub(crate) fn name(&self, namespace: &Namespace, workload: &WorkloadName) -> String {
        let part = |part| match part {
            &Part::Namespace => namespace.as_str(),
            &Part::Workload => workload.as_str(),
            Part::Text(text) => text.as_str(),
        };
        self.0.iter().map(part).collect()
    }

    /// Whose bucket that is, in words: all that share the template's placeholders share the bucket.
    pub(crate) fn owner(&self, namespace: &Namespace, workload: &WorkloadName) -> String {
        match (self.0.contains(&Part::Namespace), self.0.contains(&Part::Workload)) {
            (true, true) => format!("namespace {namespace}, workload {workload}"),
            (true, false) => format!("namespace {namespace}"),
            (false, true) => format!("workload {workload}"),
            (false, false) => "all workloads".to_owned(),
        }
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> String {
        Template::parse(template).unwrap().name(&"Team-1".parse().unwrap(), &"echo".parse().unwrap())
    }

    #[test]
    fn placeholders_are_filled_in_whatever_case_they_are_written() {
        assert_eq!(filled("hs_${namespace}_${workload_name}_kv"), "hs_Team-1_echo_kv");
        assert_eq!(filled("x-${NameSpace}${WORKLOAD_NAME}"), "x-Team-1echo");
        assert_eq!(filled("shared"), "shared");
        assert_eq!(Template::parse("hs_${namespace}_${workload_name}_kv"), Ok(Template::per_workload("kv")));
    }

    #[test]
    fn a_template_that_cannot_be_a_name_is_refused_with_its_reason() {
        for (template, reason) in [
            ("", "empty"),
            ("a.b", "letters"),
            ("a ${namespace}", "letters"),
            ("${nex}", "unknown ${nex}"),
            ("${namespace", "without its '}'"),
            ("${workload_name}${workload_name}", "256 characters"),
        ] {
            let error = Template::parse(template).unwrap_err();
            assert!(error.contains(reason), "{template}: {error}");
        }
    }
}
