//! Parses the files of a target: its modules, the paths that they name, unsafe code, and functions that are too long.
//!
//! Code below `#[cfg(test)]` is skipped, because tests may use everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Item, ItemMod, UseTree,
    spanned::Spanned as _,
    visit::{self, Visit},
};

/// Largest permitted length of a function, in lines from its signature to its closing brace.
pub const MAX_FUNCTION_LINES: usize = 90;

/// A library or a program.
pub struct Target {
    /// The folder of the root file, relative to the root of the workspace.
    pub folder: PathBuf,
    /// The modules by their path. The root module has the empty path.
    pub modules: BTreeMap<Vec<String>, Module>,
    /// Unsafe code: file and line.
    pub unsafe_code: Vec<(PathBuf, usize)>,
    /// Functions longer than [`MAX_FUNCTION_LINES`]: file, line, name and length in lines.
    pub long_functions: Vec<(PathBuf, usize, String, usize)>,
}

/// A module with its own file, or an inline module.
#[derive(Default)]
pub struct Module {
    /// The file, relative to the root of the workspace.
    pub file: PathBuf,
    /// Imported and re-exported names, and the path of each.
    pub names: BTreeMap<String, Vec<String>>,
    /// Paths of glob imports.
    pub globs: Vec<Vec<String>>,
    /// Names of the items that the module defines.
    pub items: BTreeSet<String>,
    /// Paths that the code of the module names, without those of `pub use`, which are in [`Self::public`].
    pub paths: BTreeSet<Vec<String>>,
    /// Paths that the module re-exports.
    pub public: BTreeSet<Vec<String>>,
}

impl Target {
    /// Reads the target whose root file is `path`, relative to `root`.
    ///
    /// # Errors
    ///
    /// Fails if a file is missing or is not valid Rust.
    pub fn read(root: &Path, path: &Path) -> Result<Self> {
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let mut target = Self {
            folder: folder.clone(),
            modules: BTreeMap::new(),
            unsafe_code: Vec::new(),
            long_functions: Vec::new(),
        };
        target.read_file(root, path, &folder, Vec::new())?;
        Ok(target)
    }

    /// Reads the file of a module. The files of its child modules are below `folder`.
    fn read_file(&mut self, root: &Path, file: &Path, folder: &Path, module: Vec<String>) -> Result<()> {
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("could not read {}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("could not parse {}", file.display()))?;
        self.read_items(root, file, folder, module, &parsed.items)
    }

    fn read_items(&mut self, root: &Path, file: &Path, folder: &Path, path: Vec<String>, items: &[Item]) -> Result<()> {
        let mut module = Module { file: file.to_path_buf(), ..Module::default() };
        for item in items.iter().filter(|item| !only_for_tests(attributes(item))) {
            match item {
                Item::Mod(child) => self.read_module(root, file, folder, &path, child)?,
                Item::Use(item) => {
                    let public = !matches!(item.vis, syn::Visibility::Inherited);
                    module.read_use(&item.tree, &mut Vec::new(), public);
                }
                item => {
                    module.items.extend(name(item));
                    Finder { target: self, module: &mut module }.visit_item(item);
                }
            }
        }
        self.modules.insert(path, module);
        Ok(())
    }

    fn read_module(&mut self, root: &Path, file: &Path, folder: &Path, path: &[String], child: &ItemMod) -> Result<()> {
        let name = child.ident.to_string();
        let name = name.trim_start_matches("r#").to_owned();
        let path = [path, std::slice::from_ref(&name)].concat();
        let below = folder.join(&name);
        if let Some((_, items)) = &child.content {
            return self.read_items(root, file, &below, path, items);
        }
        let flat = folder.join(format!("{name}.rs"));
        let file = match written_path(&child.attrs) {
            Some(path) => file.with_file_name(path),
            None if root.join(&flat).exists() => flat,
            None => below.join("mod.rs"),
        };
        self.read_file(root, &file, &below, path)
    }
}

impl Module {
    fn read_use(&mut self, tree: &UseTree, prefix: &mut Vec<String>, public: bool) {
        match tree {
            UseTree::Path(tree) => {
                prefix.push(tree.ident.to_string());
                self.read_use(&tree.tree, prefix, public);
                prefix.pop();
            }
            UseTree::Name(tree) => self.read_name(tree.ident.to_string(), tree.ident.to_string(), prefix, public),
            UseTree::Rename(tree) => self.read_name(tree.ident.to_string(), tree.rename.to_string(), prefix, public),
            UseTree::Glob(_) => {
                self.globs.push(prefix.clone());
                self.import(prefix.clone(), public);
            }
            UseTree::Group(tree) => tree.items.iter().for_each(|tree| self.read_use(tree, prefix, public)),
        }
    }

    fn read_name(&mut self, name: String, alias: String, prefix: &[String], public: bool) {
        let (mut path, mut alias) = (prefix.to_vec(), alias);
        if name == "self" {
            if alias == "self" {
                alias = prefix.last().cloned().unwrap_or_default();
            }
        } else {
            path.push(name);
        }
        self.import(path.clone(), public);
        // `use bytes;` introduces no other name for the crate.
        if path.len() > 1 || path.first() != Some(&alias) {
            self.names.insert(alias, path);
        }
    }

    fn import(&mut self, path: Vec<String>, public: bool) {
        let paths = if public { &mut self.public } else { &mut self.paths };
        paths.insert(path);
    }

    /// Finds paths in the arguments of a macro, which are unparsed tokens.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        // Number of colons since the last name.
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end_path(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.end_path(&mut path);
                    self.read_tokens(group.stream());
                }
                _ => self.end_path(&mut path),
            }
        }
        self.end_path(&mut path);
    }

    fn end_path(&mut self, path: &mut Vec<String>) {
        if path.len() > 1 {
            self.paths.insert(path.clone());
        }
        path.clear();
    }
}

/// Collects the paths, unsafe blocks and functions of the items of a module.
struct Finder<'a> {
    target: &'a mut Target,
    module: &'a mut Module,
}

impl Finder<'_> {
    fn unsafe_at(&mut self, span: proc_macro2::Span) {
        self.target.unsafe_code.push((self.module.file.clone(), span.start().line));
    }

    fn function(&mut self, signature: &syn::Signature, whole: proc_macro2::Span) {
        if let syn::Safety::Unsafe(token) = signature.safety {
            self.unsafe_at(token.span());
        }
        let lines = whole.end().line - signature.span().start().line + 1;
        if lines > MAX_FUNCTION_LINES {
            let start = signature.span().start().line;
            self.target.long_functions.push((self.module.file.clone(), start, signature.ident.to_string(), lines));
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 && path.leading_colon.is_none() {
            self.module.paths.insert(segments);
        }
        visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.module.read_use(&item.tree, &mut Vec::new(), false);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !only_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.module.read_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.unsafe_at(block.unsafe_token.span);
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, item.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !only_for_tests(&item.attrs) {
            self.function(&item.sig, item.span());
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig, item.span());
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let Some(token) = item.unsafety {
            self.unsafe_at(token.span());
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_item_foreign_mod(&mut self, item: &'ast syn::ItemForeignMod) {
        self.unsafe_at(item.abi.extern_token.span);
        visit::visit_item_foreign_mod(self, item);
    }
}

/// Returns whether an item has the attribute `#[cfg(test)]` or `#[test]`.
fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

/// Returns the value of `#[path = "…"]`.
fn written_path(attributes: &[Attribute]) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.path().is_ident("path"))?;
    match &attribute.meta.require_name_value().ok()?.value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}
