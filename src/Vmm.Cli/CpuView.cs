using Vmm.Cli.Remote;
using Vmm.Cpu;

namespace Vmm.Cli;

/// <summary><c>vmmctl host cpu</c>: the processor that this machine's KVM can show to guests, and how it differs from another's.</summary>
internal static class CpuView
{
    private const long LongestFile = 1 << 20;

    /// <summary>
    /// Without a file: its models and features (<c>-o json</c>: the whole description). With one: what this machine lacks of that
    /// description; exit code 1 when it lacks something.
    /// </summary>
    internal static int Run(DaemonSession session, KvmSurvey kvm, string? file)
    {
        if (kvm.Processor is not { } host)
        {
            session.Errors.WriteLine($"vmmctl: {kvm.Problem}");
            return ExitCodes.Failed;
        }

        return file is null ? Show(session, host) : Compare(session, host, file);
    }

    private static int Show(DaemonSession session, CpuDescription host)
    {
        if (session.IsJson)
        {
            session.Out.WriteLine(CpuDescriptionJson.Write(host));
            return ExitCodes.Done;
        }

        session.Out.WriteLine($"vendor: {host.Vendor}");
        session.Out.WriteLine($"physical addresses: {host.PhysicalAddressBits} bits");
        session.Out.WriteLine($"features: {string.Join(' ', CpuFeatures.All.Where(host.Has).Select(f => f.Name))}");
        Table table = new("MODEL", "RUNS", "MISSING");
        table.Add(CpuModel.Host, "yes", "-");
        foreach (CpuModel model in CpuModel.All)
        {
            string[] missing = [.. model.Required.Where(f => !host.Has(f)).Select(f => f.ToString())];
            table.Add(model.Name, missing.Length == 0 ? "yes" : "no", missing.Length == 0 ? "-" : string.Join(", ", missing));
        }

        return session.Table(table);
    }

    private static int Compare(DaemonSession session, CpuDescription host, string file)
    {
        IReadOnlyList<string> missing;
        try
        {
            FileInfo info = new(file);
            missing = info.Length <= LongestFile
                ? CpuDescriptionJson.Read(File.ReadAllText(file)).Missing(host)
                : throw new InvalidDataException("it is too long for a CPU description");
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or InvalidDataException)
        {
            session.Errors.WriteLine($"vmmctl: {file}: {cause.Message}");
            return ExitCodes.Usage;
        }

        foreach (string text in missing)
        {
            session.Out.WriteLine(text);
        }

        return missing.Count == 0 ? ExitCodes.Done : ExitCodes.Failed;
    }
}
