//! Points between two steps that change something outside of this process: tests kill it there, to see what the next one makes of it.
//!
//! Programs of a release have none: the function is empty without debug assertions.

/// Says what becomes of this process; the first time counts.
pub fn arm(plan: Plan) {
    #[cfg(debug_assertions)]
    armed::arm(plan);
    #[cfg(not(debug_assertions))]
    drop(plan);
}

/// Kills this process if that is its plan; the name is that of a step that has just been done, or is about to be.
#[inline]
pub fn crash_point(step: &'static str) {
    #[cfg(debug_assertions)]
    armed::reached(step);
    #[cfg(not(debug_assertions))]
    let _ = step;
}

/// What becomes of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// It writes each point that it reaches into a file, a line each: `trace:PATH`.
    Trace(std::path::PathBuf),
    /// It is killed when it reaches a point for the nth time, counted from 1: `N:STEP`.
    Kill {
        /// The point.
        step: String,
        /// Which time.
        nth: u32,
    },
}

impl Plan {
    /// As it is written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (how, what) = text.split_once(':')?;
        match how {
            "trace" => Some(Self::Trace(what.into())),
            nth => Some(Self::Kill { step: what.to_owned(), nth: nth.parse().ok()? }),
        }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trace(path) => write!(f, "trace:{}", path.display()),
            Self::Kill { step, nth } => write!(f, "{nth}:{step}"),
        }
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::signal::{Signal, kill};

    use super::Plan;

    static PLAN: OnceLock<Plan> = OnceLock::new();
    static REACHED: AtomicU32 = AtomicU32::new(0);

    pub(super) fn arm(plan: Plan) {
        drop(PLAN.set(plan));
    }

    pub(super) fn reached(step: &str) {
        match PLAN.get() {
            Some(Plan::Trace(path)) => {
                // One write each, so that lines of threads do not mix.
                let file = OpenOptions::new().create(true).append(true).open(path);
                drop(file.and_then(|mut file| file.write_all(format!("{step}\n").as_bytes())));
            }
            Some(Plan::Kill { step: wanted, nth }) if step == wanted && REACHED.fetch_add(1, Ordering::AcqRel) + 1 == *nth => {
                let _ends_here = kill(nix::unistd::getpid(), Signal::SIGKILL);
                // The signal may be taken by another thread; this one goes no further.
                loop {
                    std::thread::park();
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_is_written() {
        for plan in [Plan::Trace("/a:b".into()), Plan::Kill { step: "journal: written".into(), nth: 3 }] {
            assert_eq!(Plan::parse(&plan.to_string()), Some(plan));
        }
        assert_eq!((Plan::parse("x:y"), Plan::parse("3")), (None, None));
    }
}
