namespace Vmm.Testing;

/// <summary>A test of a machine with a shared folder; skipped, with the reason, where virtiofsd is not installed.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class VirtiofsdFactAttribute : KvmFactAttribute
{
    /// <inheritdoc/>
    public override string? Skip
    {
        get => File.Exists("/usr/libexec/virtiofsd") || File.Exists("/usr/lib/qemu/virtiofsd") ? base.Skip : "virtiofsd is not installed";
        set => base.Skip = value;
    }
}
