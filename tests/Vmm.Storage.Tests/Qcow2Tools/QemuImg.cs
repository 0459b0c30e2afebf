using System.Text.Json;

namespace Vmm.Storage.Tests.Qcow2Tools;

/// <summary>qemu-img as the judge of images.</summary>
internal static class QemuImg
{
    internal static string? Missing { get; } =
        File.Exists("/usr/bin/qemu-img") ? null : "qemu-img is not installed (deploy/dev-setup does that)";

    /// <summary>Runs it; the answer is its exit code with what it printed.</summary>
    internal static (int ExitCode, string Output) Run(params string[] arguments) => Qcow2.QemuImg.Try(arguments);

    /// <summary>Runs it, and it has to succeed.</summary>
    internal static string Do(params string[] arguments) => Qcow2.QemuImg.Run(arguments);

    /// <summary>What qemu-img check counts: its exit code, corruptions and leaks.</summary>
    internal static (int ExitCode, ulong Corruptions, ulong Leaks, string Output) Check(string path)
    {
        (int code, string output) = Run("check", "-f", "qcow2", "--output=json", path);
        int at = output.IndexOf('{', StringComparison.Ordinal), end = output.LastIndexOf('}');
        if (at < 0 || end < at)
        {
            return (code, 0, 0, output);
        }

        // Nothing but the object: findings are printed before and behind it.
        string json = output[at..(output.IndexOf("\n}", at, StringComparison.Ordinal) + 2)];
        JsonElement all = JsonDocument.Parse(json).RootElement;
        return (code, Number(all, "corruptions"), Number(all, "leaks"), output);
    }

    private static ulong Number(JsonElement all, string name) => all.TryGetProperty(name, out JsonElement value) ? value.GetUInt64() : 0;
}

/// <summary>A test that needs qemu-img; skipped, with the reason, without it.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class QemuFactAttribute : FactAttribute
{
    public override string? Skip
    {
        get => QemuImg.Missing ?? base.Skip;
        set => base.Skip = value;
    }
}

/// <summary>The same with several cases.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class QemuTheoryAttribute : TheoryAttribute
{
    public override string? Skip
    {
        get => QemuImg.Missing ?? base.Skip;
        set => base.Skip = value;
    }
}
