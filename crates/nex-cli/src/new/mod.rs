//! What `nex new` writes: a function or service in a language, the `nex.toml` that deploys it, a test or a sample request, and a README.
//!
//! [`catalogue`] says which there are, and [`Project`] fills one in. The files themselves are in `templates/`, by kind; those that several
//! kinds share are in `templates/shared`.

mod catalogue;
mod project;

pub(crate) use self::catalogue::{Kind, Language, Template};
pub(crate) use self::project::{Project, ProjectName};
