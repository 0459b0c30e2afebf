using System.Diagnostics;
using Xunit;

namespace Vmm.Testing;

/// <summary>A test that mounts files by loop devices; skipped, with the reason, where that cannot be.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class LoopFactAttribute : FactAttribute
{
    /// <summary>Why none can run here; null when they can.</summary>
    public static string? WhyNot { get; } = !Environment.IsPrivilegedProcess ? "only root can mount"
        : !File.Exists("/dev/loop-control") ? "no /dev/loop-control"
        : null;

    /// <summary>The file system that the test mounts when not every kernel has it, as /proc/filesystems names it.</summary>
    public string? FileSystem { get; set; }

    public override string? Skip
    {
        get => WhyNot ?? (FileSystem is { } name && !HasFileSystem(name) ? $"this kernel has no {name}" : base.Skip);
        set => base.Skip = value;
    }

    private static bool HasFileSystem(string name)
    {
        if (!IsListed(name) && File.Exists("/usr/sbin/modprobe"))
        {
            using Process load = Process.Start(new ProcessStartInfo("/usr/sbin/modprobe", ["-q", $"fs-{name}"]))!;
            load.WaitForExit();
        }

        return IsListed(name);
    }

    private static bool IsListed(string name) =>
        File.ReadLines("/proc/filesystems").Any(line => line.EndsWith($"\t{name}", StringComparison.Ordinal));
}

/// <summary>The same with data.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class LoopTheoryAttribute : TheoryAttribute
{
    public override string? Skip
    {
        get => LoopFactAttribute.WhyNot ?? base.Skip;
        set => base.Skip = value;
    }
}
