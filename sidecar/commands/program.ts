/**
 * The commands and their options. Each command is a file that is loaded when it is chosen: starting the sidecar does
 * not pay for the others.
 *
 * Exit codes: 0 ok, 1 the thing asked about is not so, 2 wrong use or wrong configuration.
 */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { nearestOf } from '../../policies/nearest.ts';
import { packageVersion } from '../config/package-folder.ts';
import { printable } from './printable.ts';

/** Runs the command that `args` (without node and script) name, and resolves to its exit code. Does not end the process. */
export async function runProgram(args: readonly string[]): Promise<number> {
  let exitCode = 0;
  const set = (code: number) => {
    exitCode = code;
  };
  const config = () =>
    new Option('-c, --config <file>', 'sidecar.yaml, or a file in the format of mcp.json').argParser(once());
  const auditFiles = () => new Option('--audit <files...>', 'audit files; - for stdin').makeOptionMandatory();
  const json = () => new Option('--json', 'print data as JSON').default(false);

  const program = new Command('sidecar')
    .description('A proxy beside AI agents: holds their credentials, enforces policy and quotas, traces and audits.')
    .version(packageVersion(), '-V, --version')
    .enablePositionalOptions()
    .showHelpAfterError('(sidecar --help shows what there is)')
    .exitOverride();

  program
    .command('run', { isDefault: true })
    .description('run the sidecar (the default)')
    .addOption(config())
    .addOption(new Option('--log-level <level>', 'over log.level').choices(['debug', 'info', 'warn', 'error']))
    .addOption(json())
    .action(async (options) => set(await (await import('./run.ts')).run(options)));

  program
    .command('init')
    .description('write a commented sidecar.yaml and policy.yaml, from .mcp.json where there is one')
    .option('--from <file>', 'the .mcp.json or mcp.json to start from')
    .addOption(json())
    .action(async (options) => set(await (await import('./init.ts')).init(options)));

  program
    .command('check')
    .description('validate the configuration and explain it')
    .addOption(config())
    .option('--connect', 'also ask each server for its tools, and say who will see which', false)
    .addOption(json())
    .action(async (options) => set(await (await import('./check.ts')).check(options)));

  program
    .command('pin')
    .description('write sidecar.lock: the tools of the servers as they are now, for review')
    .addOption(config())
    .option('--server <name>', 'only this server; may be repeated', collect, [])
    .option('--diff', 'write nothing; say what differs from sidecar.lock, and exit 1 when something does', false)
    .addOption(json())
    .action(async (options) => set(await (await import('./pin.ts')).pinCommand(options)));

  const policy = program
    .command('policy')
    .description('test, explain and sign a policy; replay an audit by it, or suggest one from an audit');
  policy
    .command('test')
    .description('run the *.cases.yaml beside a policy, and say which rules none of them has decided')
    .argument('[paths...]', 'policies, files of cases, folders of them, or library/<name>')
    .addOption(config())
    .addOption(
      new Option('--coverage <percent>', 'fail when the cases cover less of its roles, rules and quotas').argParser(
        percent,
      ),
    )
    .addOption(json())
    .action(async (paths, options) => set(await (await import('./policy-test.ts')).policyTest(paths, options)));
  policy
    .command('explain')
    .description('say what a policy does about one request, and why')
    .addOption(config())
    .option('--policy <path>', 'this policy (a file, a folder, library/<name>) instead of the one in sidecar.yaml')
    .option('--agent <name>', 'who asks; default: the group')
    .option('--role <name>', 'a role that its identity brings; may be repeated', collect, [])
    .option('--claims <json>', 'agent.claims')
    .option('--group <name>', "agent.group; default: the configuration's, or default")
    .option('--user <sub>', 'on whose behalf')
    .option('--user-claims <json>', 'user.claims; wants --user')
    .option('--session <id>', 'session.id; default: none')
    .option('--tool <name>', 'tools/call, such as github.push_files')
    .option('--prompt <name>', 'prompts/get')
    .option('--resource <uri>', 'resources/read; wants --server')
    .option('--method <name>', 'any other method; wants --server')
    .option('--server <name>', 'the server, where the name does not start with it')
    .option('--virtual <name>', 'the virtual server at whose endpoint it comes')
    .option('--args <json>', 'the arguments, or the params of --method')
    .option('--annotations <json>', 'the hints that the server gives for the tool; default: none')
    .option('--at <time>', 'when; default: now')
    .addOption(json())
    .action(async (options) => set(await (await import('./policy-explain.ts')).policyExplain(options)));
  policy
    .command('replay')
    .description('judge the requests of an audit again by another policy, and say what would change')
    .addOption(auditFiles())
    .requiredOption('--policy <path>', 'the other policy: a file, a folder, library/<name>')
    .option('--agent <name>', 'only what this agent asked; may be repeated', collect, [])
    .addOption(json())
    .action(async (options) => set(await (await import('./policy-replay.ts')).policyReplay(options)));
  policy
    .command('suggest')
    .description('write the least privilege that the traffic in an audit needs, as a policy with comments and cases')
    .addOption(auditFiles())
    .option(
      '--out <folder>',
      'write <name>.yaml and <name>.cases.yaml there, made if need be; default: print the policy',
    )
    .option('--name <name>', 'of the files', 'suggested')
    .option('--widen', 'globs in place of many resources in one folder: wider than the traffic', false)
    .addOption(json())
    .action(async (options) => set(await (await import('./policy-suggest.ts')).policySuggest(options)));

  policy
    .command('bundle')
    .description('sign a policy, with all that it extends, for the sidecars of a fleet to fetch by URL')
    .requiredOption('--policy <path>', 'a file, a folder, library/<name>')
    .requiredOption('--key <file>', 'the private key, PEM or JWK; the sidecars pin its public half')
    .addOption(
      new Option('--version <number>', 'higher than that of the bundle before').argParser(count).makeOptionMandatory(),
    )
    .addOption(new Option('--expires <duration>', 'such as 30d or 12h; default: never').argParser(lifetime))
    .option('--group <name>', 'the only group that may use it; default: any')
    .option('--key-id <id>', 'kid; default: that of the JWK, or the thumbprint of the key')
    .option('-o, --output <file>', 'write it there; default: print it')
    .addOption(json())
    .action(async (options) => set(await (await import('./policy-bundle.ts')).policyBundle(options)));

  const audit = program.command('audit').description('look at audit files');
  audit
    .command('report')
    .description('calls, refusals, errors, tokens, cost and latency by agent, server and tool')
    .addOption(auditFiles())
    .option('--by <names>', 'a row for each of these: agent, server, tool', 'agent,server,tool')
    .option('--since <time>', 'a time, or how long ago, such as 24h')
    .option('--until <time>', 'before this time')
    .option('--policy <path>', 'whose prices are taken where the audit has no cost')
    .addOption(new Option('--format <format>', 'how to print it').choices(['table', 'csv', 'json']).default('table'))
    .addOption(new Option('--json', 'the same as --format json').implies({ format: 'json' }))
    .action(async (options) => set(await (await import('./audit-report.ts')).auditReport(options)));

  const files = () =>
    new Option('-f, --file <path>', 'a manifest, a folder of them, or - for standard input; may be repeated')
      .argParser(collect)
      .makeOptionMandatory();
  const diff = () => new Option('--diff', 'show what would change instead').default(false);
  const dryRun = () =>
    new Option('--check', 'print no manifest; say what would change, and exit 1 when something would').default(false);
  const output = () =>
    new Option('-o, --output <format>', 'of the manifests').choices(['yaml', 'json']).default('yaml');
  const asJson = () => new Option('--json', 'the same as --output json').implies({ output: 'json' });
  program
    .command('inject')
    .description('put the sidecar into the pods of manifests that ask for it, as the webhook does')
    .addOption(files())
    .addOption(
      new Option(
        '--groups <path>',
        'manifests with the ConfigMaps of the groups, where the others have none',
      ).argParser(collect),
    )
    .addOption(
      new Option('--mode <mode>', 'native needs kubelets of 1.29 or later')
        .choices(['native', 'classic'])
        .default('native'),
    )
    .option('--config <file>', 'injector.yaml, as the webhook has it: then both make the same pods', once())
    .addOption(diff())
    .addOption(dryRun())
    .addOption(output())
    .addOption(asJson())
    .action(async (options) => set(await (await import('./inject.ts')).injectCommand(options)));
  program
    .command('uninject')
    .description('take the sidecar out of manifests again')
    .addOption(files())
    .addOption(diff())
    .addOption(dryRun())
    .addOption(output())
    .addOption(asJson())
    .action(async (options) => set(await (await import('./inject.ts')).uninjectCommand(options)));

  program
    .command('injector')
    .description('run the admission webhook that puts the sidecar into annotated pods')
    .option('-c, --config <file>', 'injector.yaml', once(), '/etc/mcp-sidecar-injector/injector.yaml')
    .addOption(
      new Option('--log-level <level>', 'how much is told').choices(['debug', 'info', 'warn', 'error']).default('info'),
    )
    .action(async (options) => set(await (await import('./injector.ts')).injector(options)));

  program
    .command('schema')
    .description('print the JSON Schema of sidecar.yaml')
    .option('--policy', 'of policy.yaml instead', false)
    .addOption(new Option('--json', 'print data as JSON (it always is)'))
    .action(async (options) => set(await (await import('./schema.ts')).schema(options)));

  const [first] = args;
  const names = program.commands.map((command) => command.name());
  try {
    // Otherwise it is an argument too many of the default command.
    if (first !== undefined && /^\w/.test(first) && ![...names, 'help'].includes(first))
      program.error(`error: there is no command ${printable(first)}${meant(first, names)}`);
    await program.parseAsync(args, { from: 'user' });
    return exitCode;
  } catch (error) {
    // commander has said what was wrong; help and version end here too, with 0.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
}

function meant(word: string, known: readonly string[]): string {
  const nearest = nearestOf(word, known);
  return nearest === undefined ? '' : `; did you mean ${nearest}?`;
}

function percent(text: string): number {
  const value = Number(text);
  if (!(value >= 0 && value <= 100) || text.trim() === '') throw new InvalidArgumentError('It is not from 0 to 100.');
  return value;
}

function count(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError('It is not a whole number from 1 on.');
  return value;
}

/** Milliseconds. Days too, which no setting of a running sidecar needs. */
function lifetime(text: string): number {
  const [, digits, unit] = /^([1-9]\d{0,4})(m|h|d)$/.exec(text) ?? [];
  if (digits === undefined) throw new InvalidArgumentError('It is not a duration such as 30d, 12h or 90m.');
  return Number(digits) * { m: 60_000, h: 3_600_000, d: 86_400_000 }[unit as 'm' | 'h' | 'd'];
}

/** Of two, commander would take the last: whoever adds to a command line is not to choose the configuration. */
function once(): (value: string) => string {
  let isGiven = false;
  return (value) => {
    if (isGiven) throw new InvalidArgumentError('It is given twice, and there can only be one.');
    isGiven = true;
    return value;
  };
}

function collect(value: string, earlier: readonly string[] = []): readonly string[] {
  return [...earlier, value];
}
