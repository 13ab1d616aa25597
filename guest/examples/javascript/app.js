// A provider of sandboxes in JavaScript: the two interfaces that every provider needs, with sandboxes in memory.
//
// A sandbox is a record, and a command is one of four built-in programs: `echo`, `cat`, `sleep` and `exit`. No program
// really runs. `jco componentize` makes a component of this file: it looks for an export for each interface, named like
// it. What a function throws becomes the error of the call. QuickJS has plain numbers for 64-bit integers, where other
// engines have BigInt.

import { now, subscribeDuration } from 'wasi:clocks/monotonic-clock@0.2.12';

// The capabilities, with notes on their limits. Whatever is not listed here is refused.
const CAPABILITIES = {
  'create.idempotent': '',
  'create.tags': 'Sandboxes exist only in the process that created them.',
  'tags.update': '',
  'network.blocked': 'A sandbox has no network in any case.',
  'exec.idempotent': '',
  'exec.deadline': '',
  'exec.merge-stderr': '',
};

// The sandboxes by id, oldest first. The manifest asks for one instance, whose memory this is.
const sandboxes = new Map();

/** Returns an error to throw. Nothing has taken effect, and a repetition would fail in the same way. */
function failure(kind, message, subject) {
  return { kind: { tag: kind }, message, happened: 'no', retry: { tag: 'never' }, subject, extra: [] };
}

function unsupported(capability) {
  return failure('unsupported', `This provider does not have the capability ${capability}.`, capability);
}

/** Returns whether an optional value is there. QuickJS passes null for one that is not, other engines undefined. */
function isSet(value) {
  return value !== undefined && value !== null;
}

/** Throws an error for the first wish that is set. An empty list counts as unset. */
function refuse(wishes) {
  for (const [capability, wish] of Object.entries(wishes)) {
    if (Array.isArray(wish) ? wish.length > 0 : isSet(wish) && wish !== false) {
      throw unsupported(capability);
    }
  }
}

/** Throws an error unless this is the form of ids and keys that callers choose. */
function checkId(id, what) {
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(id) || id === 'main') {
    const form = '1 to 64 characters of A-Z, a-z, 0-9, _ and -, and is not `main`.';
    throw failure('invalid-argument', `${what} has ${form}`, id);
  }
}

function checkEnv(env) {
  for (const [name, value] of env) {
    if (name === '' || name.includes('=') || (name + value).includes('\0')) {
      const rule = 'The name of a variable is not empty and has no `=`, and no text has NUL.';
      throw failure('invalid-argument', rule, name);
    }
  }
}

/** Throws an error if `create` cannot fulfil a wish. Nothing that a caller asks for is ignored. */
function checkSpec(spec) {
  const { image } = spec;
  const unknown = [...spec.options, ...spec.extra, ...image.extra];
  if (unknown.length > 0) {
    throw failure('invalid-argument', 'This provider has no options.', unknown[0][0]);
  }
  if (image.source.tag !== 'provider-default') {
    throw unsupported(image.source.tag === 'registry' ? 'image.registry' : 'image.dockerfile');
  }
  if (spec.entryPoint.tag === 'command') {
    throw unsupported('create.command');
  }
  if (isSet(spec.key)) {
    checkId(spec.key, 'A key');
  }
  const { resources, network } = spec;
  const allowed = network.outbound.tag === 'allowed' ? network.outbound.val : undefined;
  for (const { kind } of spec.ports) {
    throw unsupported(`ports.${kind}`);
  }
  refuse({
    'image.commands': image.commands,
    'image.secrets': image.secrets,
    'image.builder-version': image.builderVersion,
    'image.gpu': image.gpu,
    'create.platform': image.platform,
    'create.cpu': resources.cpuRequestMillicores ?? resources.cpuLimitMillicores,
    'create.memory': resources.memoryRequestMib ?? resources.memoryLimitMib,
    'create.disk': resources.diskMib,
    'create.gpu': resources.gpu,
    'create.env': spec.env,
    'create.secrets': spec.secrets,
    'create.user': spec.user,
    'create.workdir': spec.workdir,
    'create.lifetime': spec.lifetime,
    'create.idle-timeout': spec.idleTimeout,
    'create.regions': spec.regions,
    'create.volumes': spec.volumes,
    'create.buckets': spec.buckets,
    'create.names': spec.name,
    'create.readiness': spec.readiness,
    'create.pty': spec.pty,
    'create.proxy': spec.proxy,
    'network.domains': allowed?.domains,
    'network.cidrs': allowed,
    'network.inbound': network.inboundCidrs,
    sidecars: spec.sidecars,
  });
}

function find(id) {
  const sandbox = sandboxes.get(id);
  if (sandbox === undefined) {
    throw failure('not-found', 'There is no such sandbox.', id);
  }
  return sandbox;
}

/** Removes all but the last value of each name. */
function unique(tags) {
  return [...new Map(tags)];
}

/** Waits for a time in milliseconds. */
function sleep(millis) {
  subscribeDuration(Math.round(millis * 1e6)).block();
}

/** The interface `sandbox-provider`. */
export const sandboxProvider = {
  describe() {
    const capabilities = Object.entries(CAPABILITIES).map(([name, note]) => ({ name, support: 'native', note }));
    const optionsSchema = '{"type":"object"}';
    return {
      name: 'memory-javascript', version: '0.1.0', capabilities, optionsSchema, environment: [], digests: [], extra: [],
    };
  },

  check() {},

  checkSpec(spec) {
    checkSpec(spec);
  },

  create(spec) {
    checkSpec(spec);
    for (const { info, key } of sandboxes.values()) {
      if (isSet(spec.key) && key === spec.key) {
        return info;
      }
    }
    const id = `js-${sandboxes.size + 1}-${now()}`;
    const created = Date.now();
    const info = { id, state: { tag: 'running' }, created, tags: unique(spec.tags), tunnels: [], extra: [] };
    // The results of its commands are kept, so that a repeated call does not run a command again.
    sandboxes.set(id, { info, key: spec.key, results: new Map() });
    return info;
  },

  get(id) {
    return find(id).info;
  },

  // Returns a page. The cursor is the number of sandboxes that were older than the end of the last page.
  list(filter, cursor, max) {
    if (max < 1 || max > 1000) {
      throw failure('invalid-argument', '`max` is between 1 and 1000.');
    }
    if (filter.extra.length > 0) {
      throw failure('invalid-argument', 'This provider has no such filter.', filter.extra[0][0]);
    }
    const all = [...sandboxes.values()];
    let end = isSet(cursor) ? Number(cursor) : all.length;
    if (!Number.isInteger(end) || end < 0 || end > all.length) {
      throw failure('invalid-argument', 'This is no cursor of a list.');
    }
    const items = [];
    while (end > 0 && items.length < max) {
      end -= 1;
      const { info } = all[end];
      const has = ([name, value]) => info.tags.some((tag) => tag[0] === name && tag[1] === value);
      if ((info.state.tag === 'running' || filter.includeEnded) && filter.tags.every(has)) {
        items.push(info);
      }
    }
    return { items, next: end > 0 ? String(end) : undefined };
  },

  // Returns the end. Sleeps for a moment only: all calls share this instance, and another one ends the sandbox.
  wait(id, wait) {
    const { state } = find(id).info;
    if (state.tag === 'ended') {
      return state.val;
    }
    sleep(Math.min(wait, 100));
    return undefined;
  },

  terminate(id) {
    find(id).info.state = { tag: 'ended', val: { tag: 'terminated' } };
  },

  getTags(id) {
    return find(id).info.tags;
  },

  setTags(id, tags) {
    find(id).info.tags = unique(tags);
  },
};

/** The interface `exec`. */
export const exec = {
  run(id, spec, stdin, limits) {
    const sandbox = find(id);
    if (sandbox.info.state.tag === 'ended') {
      throw failure('sandbox-ended', 'The sandbox was terminated.', id);
    }
    checkId(spec.id, 'An exec id');
    if (spec.argv.length === 0 || spec.argv.some((word) => word.includes('\0'))) {
      throw failure('invalid-argument', 'A command has at least one word, and none has NUL.');
    }
    if (spec.timeout === 0) {
      throw failure('invalid-argument', 'A time limit is longer than 0.');
    }
    checkEnv(spec.env);
    if (spec.extra.length > 0) {
      throw failure('invalid-argument', 'This provider has no such field.', spec.extra[0][0]);
    }
    refuse({
      'create.env': spec.env,
      'exec.secrets': spec.secrets,
      'exec.cwd': spec.cwd,
      'exec.user': spec.user,
      'exec.pty': spec.pty,
      sidecars: spec.container,
    });
    if (!sandbox.results.has(spec.id)) {
      sandbox.results.set(spec.id, execute(spec, stdin, limits));
    }
    return sandbox.results.get(spec.id);
  },
};

/** Encodes a text as UTF-8. The engine has no TextEncoder. */
function bytes(text) {
  const escaped = encodeURIComponent(text);
  return Uint8Array.from(escaped.match(/%..|[^%]/g) ?? [], (unit) =>
    unit.length > 1 ? parseInt(unit.slice(1), 16) : unit.charCodeAt(0));
}

/** Runs a command and returns its result. */
function execute(spec, stdin, limits) {
  const begun = now();
  const [program, ...words] = spec.argv;
  let verdict = { tag: 'exited', val: 0 };
  let out = new Uint8Array();
  let err = new Uint8Array();
  if (program === 'echo') {
    out = bytes(`${words.join(' ')}\n`);
  } else if (program === 'cat' && words.length === 0) {
    out = stdin;
  } else if (program === 'sleep' && words.length === 1 && /^\d+(\.\d+)?$/.test(words[0])) {
    const millis = Number(words[0]) * 1000;
    const limit = spec.timeout ?? Infinity;
    if (millis > limit) {
      verdict = { tag: 'deadline' };
    }
    sleep(Math.min(millis, limit));
  } else if (program === 'exit' && words.length === 1 && /^\d+$/.test(words[0]) && Number(words[0]) < 256) {
    verdict = { tag: 'exited', val: Number(words[0]) };
  } else {
    verdict = { tag: 'exited', val: 127 };
    err = bytes(`${program}: no such program, or wrong arguments\n`);
  }
  if (spec.mergeStderr) {
    [out, err] = [new Uint8Array([...out, ...err]), new Uint8Array()];
  }
  const stdout = captured(out, limits.stdoutMax, spec.stdout, limits.keep);
  const stderr = captured(err, limits.stderrMax, spec.stderr, limits.keep);
  return { verdict, stdout, stderr, duration: Math.round((now() - begun) / 1e6) };
}

/** Cuts output to a limit. */
function captured(data, limit, mode, keep) {
  if (mode === 'discard') {
    return { data: new Uint8Array(), total: 0 };
  }
  const most = Math.min(limit, data.length);
  const kept = keep === 'head' ? data.subarray(0, most) : data.subarray(data.length - most);
  return { data: kept, total: data.length };
}
