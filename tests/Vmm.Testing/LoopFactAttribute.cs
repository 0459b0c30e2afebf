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

    public override string? Skip
    {
        get => WhyNot ?? base.Skip;
        set => base.Skip = value;
    }
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
