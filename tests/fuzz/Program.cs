using SharpFuzz;
using Vmm.Fuzz;

// vmm-fuzz TARGET: one input from standard input at a time, as afl-fuzz sends them. vmm-fuzz TARGET FILE...: each file once, for a corpus
// or a finding.
if (args.Length == 0 || !Targets.All.TryGetValue(args[0], out Action<byte[]>? target))
{
    Console.Error.WriteLine($"vmm-fuzz TARGET [FILE...]; targets: {string.Join(", ", Targets.All.Keys)}");
    return 2;
}

if (args.Length == 1)
{
    Fuzzer.OutOfProcess.Run(stream =>
    {
        using MemoryStream input = new();
        stream.CopyTo(input);
        target(input.ToArray());
    });
    return 0;
}

foreach (string file in args.Skip(1))
{
    target(File.ReadAllBytes(file));
}

Console.WriteLine($"{args[0]}: {args.Length - 1} inputs");
return 0;
