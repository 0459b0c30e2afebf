namespace Vmm.Testing;

/// <summary>A test of a machine with a disk of qemu-storage-daemon; skipped, with the reason, where that is not installed.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class StorageDaemonFactAttribute : KvmFactAttribute
{
    /// <summary>Where Debian has it (qemu-system-common, qemu-utils from trixie on).</summary>
    public const string Program = "/usr/bin/qemu-storage-daemon";

    /// <inheritdoc/>
    public override string? Skip
    {
        get => File.Exists(Program) ? base.Skip : "qemu-storage-daemon is not installed";
        set => base.Skip = value;
    }
}
