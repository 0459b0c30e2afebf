using SharpFuzz;
using Vmm.Testing.Virtio;

// vmm-fuzz-devices TARGET: one input from standard input at a time, as afl-fuzz sends them. TARGET FILE...: each file once, for a corpus or
// a finding.
// TARGET --seed FILE: writes a sound request as an input.
if (args.Length == 0 || !FuzzTargets.Names.Contains(args[0]))
{
    Console.Error.WriteLine($"vmm-fuzz-devices TARGET [FILE...]; targets: {string.Join(", ", FuzzTargets.Names)}");
    return 2;
}

// Made by the first input: what is instrumented may not run before the fuzzer is there.
Lazy<IFuzzTarget> inputs = new(() => FuzzTargets.Create(args[0]));
switch (args)
{
    case [_]:
        Fuzzer.OutOfProcess.Run(stream =>
        {
            using MemoryStream input = new();
            stream.CopyTo(input);
            inputs.Value.Feed(input.ToArray());
        });
        break;
    case [_, "--seed", string file]:
        File.WriteAllBytes(file, inputs.Value.Seed());
        break;
    default:
        foreach (string file in args.Skip(1))
        {
            inputs.Value.Feed(File.ReadAllBytes(file));
        }

        inputs.Value.Heal();
        Console.WriteLine($"{args[0]}: {args.Length - 1} inputs");
        break;
}

return 0;
