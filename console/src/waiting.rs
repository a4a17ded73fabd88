//! How long the console waits for somebody outside: an SSH agent, a plugin, whoever writes into a pipe. None of them
//! may hold it for ever.

use std::time::Duration;

/// Long enough to find a security key and touch it, or to answer a question that appears elsewhere.
pub const A_TOUCH: Duration = Duration::from_mins(1);

/// A limit to waiting, and who is told what is waited for.
#[derive(Clone, Copy)]
pub struct Waiting<'a> {
    /// The longest wait.
    pub limit: Duration,
    /// Shows the person a line.
    pub tell: &'a dyn Fn(&str),
}

impl<'a> Waiting<'a> {
    /// Waits for [`A_TOUCH`], and tells the person through this.
    #[must_use]
    pub fn telling(tell: &'a dyn Fn(&str)) -> Self {
        Self { limit: A_TOUCH, tell }
    }
}

impl Waiting<'static> {
    /// Waits for [`A_TOUCH`] where the person has been told already.
    #[must_use]
    pub fn quiet() -> Self {
        Self::telling(&|_| {})
    }
}
