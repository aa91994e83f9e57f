//! The macros that make tests of the lists of cases.

/// Runs every case for a [`StreamBackend`](crate::backend::StreamBackend) over what `make` opens, each as a test of its own.
///
/// Use it where a module may stand. The first argument is the name of the module; the second is an async function or closure
/// without arguments, a path being looked up from where the macro stands.
///
/// ```
/// # mod tests {
/// async fn make() -> highwater::memory::Memory {
///     highwater::memory::Memory::new()
/// }
///
/// highwater::stream_conformance!(memory, make);
/// # }
/// ```
#[macro_export]
macro_rules! stream_conformance {
    ($name:ident, $make:expr) => {
        $crate::__stream_cases! { [$crate::__tests] $name run_stream $make }
    };
}

/// Runs every case for a [`CheckpointBackend`](crate::backend::CheckpointBackend) over what `make` opens, each as a test of its own.
///
/// Use it where a module may stand. The first argument is the name of the module; the second is an async function or closure
/// without arguments, a path being looked up from where the macro stands.
///
/// ```
/// # mod tests {
/// async fn make() -> highwater::memory::Memory {
///     highwater::memory::Memory::new()
/// }
///
/// highwater::checkpoint_conformance!(memory, make);
/// # }
/// ```
#[macro_export]
macro_rules! checkpoint_conformance {
    ($name:ident, $make:expr) => {
        $crate::__checkpoint_cases! { [$crate::__tests] $name run_checkpoint $make }
    };
}

/// Runs every case for an [`AtomicSettle`](crate::backend::AtomicSettle) over what `make` opens, each as a test of its own.
///
/// Use it where a module may stand. The first argument is the name of the module; the second is an async function or closure
/// without arguments, a path being looked up from where the macro stands.
///
/// ```
/// # mod tests {
/// async fn make() -> highwater::memory::Memory {
///     highwater::memory::Memory::new()
/// }
///
/// highwater::settle_conformance!(memory, make);
/// # }
/// ```
#[macro_export]
macro_rules! settle_conformance {
    ($name:ident, $make:expr) => {
        $crate::__settle_cases! { [$crate::__tests] $name run_settle $make }
    };
}

/// One test a case.
#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    ([$name:ident $run:ident $make:expr] $($module:ident { $($case:ident)* })*) => {
        mod $name {
            use super::*;

            $crate::__tests! { @modules [$run $make] $($module { $($case)* })* }
        }
    };
    (@modules $context:tt $($module:ident $cases:tt)*) => {
        $( $crate::__tests! { @module $context $module $cases } )*
    };
    (@module [$run:ident $make:expr] $module:ident { $($case:ident)* }) => {
        mod $module {
            use super::*;

            $(
                #[test]
                fn $case() {
                    let case = concat!(stringify!($module), "::", stringify!($case));
                    $crate::conformance::$run(case, $make);
                }
            )*
        }
    };
}

/// Runs the case of a name.
#[doc(hidden)]
#[macro_export]
macro_rules! __dispatch {
    ([$target:ident] $($module:ident { $($case:ident)* })*) => {
        pub(super) async fn run(case: &str, target: $target) -> Verdict {
            match case {
                $($(
                    // Boxed, or the future of each case would be in the one of this function.
                    concat!(stringify!($module), "::", stringify!($case)) => {
                        Box::pin($module::$case(target)).await
                    }
                )*)*
                _ => panic!("there is no case `{case}`"),
            }
        }
    };
}
