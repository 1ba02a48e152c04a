//! Evaluation of one expression.

use super::{Compiled, with_stack};
use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, operators};
use kube_cel::cel::extractors::Arguments;
use kube_cel::cel::objects::{OptionalValue, ValueType};
use kube_cel::cel::parser::Expression;
use kube_cel::cel::{Context, ExecutionError, ResolveResult, Value as Cel};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

/// The longest text of an error, in characters.
const MAX_ERROR: usize = 256;

/// The deepest tree evaluated on the stack of the caller.
const SHALLOW: usize = 24;

/// The stack for deeper trees, in bytes.
const DEEP_STACK: usize = 16 << 20;

/// The functions of CEL and of Kubernetes, and the names of types.
static BASE: LazyLock<Context<'static>> = LazyLock::new(|| {
    let mut context = Context::default().with_all();
    context.add_function("type", type_of);
    context.add_function("dyn", same);
    context.add_function("bool", bool_of);
    for name in TYPES {
        context.add_variable_from_value(name, name.to_owned());
    }
    context
});

/// The names of types, as `type` gives them.
const TYPES: [&str; 10] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];

/// What an expression may name.
pub(super) struct Scope {
    context: Context<'static>,
}

impl Scope {
    pub(super) fn new() -> Self {
        Self {
            context: BASE.new_inner_scope(),
        }
    }

    pub(super) fn set(&mut self, name: &str, value: Cel) {
        self.context.add_variable_from_value(name, value);
    }

    /// Evaluates an expression; a deep one on a stack of its own.
    ///
    /// # Errors
    /// The text of the error, in the words of the API server.
    pub(super) fn evaluate(&self, expression: &Compiled) -> Result<Cel, String> {
        let run = || resolve(&expression.tree, &self.context);
        let result = if expression.depth > SHALLOW {
            with_stack(DEEP_STACK, run)
        } else {
            catch_unwind(AssertUnwindSafe(run)).ok()
        };
        match result {
            Some(result) => result.map_err(|error| words(&error)),
            None => Err("internal error".to_owned()),
        }
    }
}

/// An optional that holds a value, or none.
pub(super) fn optional(value: Option<Cel>) -> Cel {
    Cel::Opaque(Arc::new(
        value.map_or_else(OptionalValue::none, OptionalValue::of),
    ))
}

/// Whether a name stands for something beside `self` and `oldSelf`.
pub(super) fn is_variable(name: &str) -> bool {
    TYPES.contains(&name)
}

/// Whether there is an operator or function of this name.
pub(super) fn is_function(name: &str) -> bool {
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return true;
    }
    let call = Expression {
        id: 0,
        expr: Expr::Call(CallExpr {
            func_name: name.to_owned(),
            target: None,
            args: Vec::new(),
        }),
    };
    let result = catch_unwind(AssertUnwindSafe(|| Cel::resolve(&call, &BASE)));
    !matches!(result, Ok(Err(ExecutionError::UndeclaredReference(_))))
}

/// Calls a function with one argument; nothing if it fails.
pub(super) fn call(function: &str, argument: Cel) -> Option<Cel> {
    let mut context = BASE.new_inner_scope();
    context.add_variable_from_value("argument", argument);
    let (func_name, target) = match function.split_once('.') {
        Some((space, name)) => (name, Some(Box::new(ident(space)))),
        None => (function, None),
    };
    let call = Expression {
        id: 0,
        expr: Expr::Call(CallExpr {
            func_name: func_name.to_owned(),
            target,
            args: vec![ident("argument")],
        }),
    };
    catch_unwind(AssertUnwindSafe(|| Cel::resolve(&call, &context).ok()))
        .ok()
        .flatten()
}

fn ident(name: &str) -> Expression {
    Expression {
        id: 0,
        expr: Expr::Ident(name.to_owned()),
    }
}

/// Evaluates an expression. Logic is done here and not by the library, because an error on one side of `&&` and `||`
/// gives way to the other side where that decides, also in loops, and else the error of the left side is the one told.
fn resolve(expression: &Expression, context: &Context<'_>) -> ResolveResult {
    match &expression.expr {
        Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_OR, [left, right]) => {
                logic(true, resolve(left, context), || resolve(right, context))
            }
            (operators::LOGICAL_AND, [left, right]) => {
                logic(false, resolve(left, context), || resolve(right, context))
            }
            (operators::LOGICAL_NOT, [inner]) => match resolve(inner, context)? {
                Cel::Bool(b) => Ok(Cel::Bool(!b)),
                _ => Err(ExecutionError::NoSuchOverload),
            },
            (operators::CONDITIONAL, [condition, yes, no]) => match resolve(condition, context)? {
                Cel::Bool(true) => resolve(yes, context),
                Cel::Bool(false) => resolve(no, context),
                _ => Err(ExecutionError::NoSuchOverload),
            },
            _ => Cel::resolve(expression, context),
        },
        Expr::Comprehension(all) => match quantifier(all) {
            Some((decisive, predicate)) => quantify(all, decisive, predicate, context),
            None => Cel::resolve(expression, context),
        },
        _ => Cel::resolve(expression, context),
    }
}

/// `&&` and `||`: `decisive` is the value of one side that decides alone.
fn logic(
    decisive: bool,
    left: ResolveResult,
    right: impl FnOnce() -> ResolveResult,
) -> ResolveResult {
    if matches!(left, Ok(Cel::Bool(b)) if b == decisive) {
        return left;
    }
    match (left, right()) {
        (_, Ok(Cel::Bool(b))) if b == decisive => Ok(Cel::Bool(decisive)),
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(Cel::Bool(_)), Ok(Cel::Bool(_))) => Ok(Cel::Bool(!decisive)),
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// The predicate of `all` (which `false` decides) or `exists` (which `true` decides).
fn quantifier(all: &ComprehensionExpr) -> Option<(bool, &Expression)> {
    let Expr::Call(step) = &all.loop_step.expr else {
        return None;
    };
    let is_result = |e: &Expression| matches!(&e.expr, Expr::Ident(name) if *name == all.accu_var);
    let ([accumulated, predicate], Expr::Literal(LiteralValue::Boolean(_)), true) = (
        step.args.as_slice(),
        &all.accu_init.expr,
        is_result(&all.result),
    ) else {
        return None;
    };
    match step.func_name.as_str() {
        _ if !is_result(accumulated) || all.iter_var2.is_some() => None,
        operators::LOGICAL_AND => Some((false, predicate)),
        operators::LOGICAL_OR => Some((true, predicate)),
        _ => None,
    }
}

fn quantify(
    all: &ComprehensionExpr,
    decisive: bool,
    predicate: &Expression,
    context: &Context<'_>,
) -> ResolveResult {
    let items: Vec<Cel> = match resolve(&all.iter_range, context)? {
        Cel::List(items) => items.to_vec(),
        Cel::Map(map) => map.map.keys().map(Cel::from).collect(),
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    let mut result = Ok(Cel::Bool(!decisive));
    for item in items {
        let mut inner = context.new_inner_scope();
        inner.add_variable_from_value(all.iter_var.as_str(), item);
        result = logic(decisive, result, || resolve(predicate, &inner));
        if matches!(result, Ok(Cel::Bool(b)) if b == decisive) {
            break;
        }
    }
    result
}

fn type_of(Arguments(arguments): Arguments) -> ResolveResult {
    let [value] = arguments.as_slice() else {
        return Err(ExecutionError::NoSuchOverload);
    };
    let name = match value.type_of() {
        ValueType::Bool => "bool",
        ValueType::Bytes => "bytes",
        ValueType::Float => "double",
        ValueType::Int => "int",
        ValueType::List => "list",
        ValueType::Map => "map",
        ValueType::Null => "null_type",
        ValueType::String => "string",
        ValueType::UInt => "uint",
        other => return Ok(Cel::String(Arc::new(other.to_string()))),
    };
    Ok(Cel::String(Arc::new(name.to_owned())))
}

fn same(Arguments(arguments): Arguments) -> ResolveResult {
    match arguments.as_slice() {
        [value] => Ok(value.clone()),
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

fn bool_of(Arguments(arguments): Arguments) -> ResolveResult {
    match arguments.as_slice() {
        [Cel::Bool(b)] => Ok(Cel::Bool(*b)),
        [Cel::String(s)] => match s.as_str() {
            "1" | "t" | "true" | "TRUE" | "True" => Ok(Cel::Bool(true)),
            "0" | "f" | "false" | "FALSE" | "False" => Ok(Cel::Bool(false)),
            _ => Err(ExecutionError::NoSuchOverload),
        },
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// An error in the words that the API server has for it.
fn words(error: &ExecutionError) -> String {
    let text = match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::NoSuchOverload | ExecutionError::ValuesNotComparable(..) => {
            "no such overload".to_owned()
        }
        ExecutionError::UndeclaredReference(name) => format!("no such attribute(s): {name}"),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
        other => {
            let text = other.to_string();
            let mut letters = text.chars();
            letters.next().map_or_else(String::new, |first| {
                first.to_lowercase().chain(letters).collect()
            })
        }
    };
    text.replace(['\n', '\r'], " ")
        .chars()
        .take(MAX_ERROR)
        .collect()
}
