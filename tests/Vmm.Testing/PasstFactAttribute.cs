namespace Vmm.Testing;

/// <summary>A test of a machine whose network is passt; skipped, with the reason, where that is not installed.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class PasstFactAttribute : KvmFactAttribute
{
    /// <inheritdoc/>
    public override string? Skip
    {
        get => File.Exists("/usr/bin/passt") ? base.Skip : "passt is not installed";
        set => base.Skip = value;
    }
}
