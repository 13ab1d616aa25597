// Compiles the component on standard input. The native module starts this program in a process of its own, so that the kernel
// limits the memory and the time of the compiler.
// eslint-disable-next-line @typescript-eslint/no-require-imports
const native: { compileComponent(): number } = require(`./native/${process.platform}-${process.arch}.node`);
process.exit(native.compileComponent());
