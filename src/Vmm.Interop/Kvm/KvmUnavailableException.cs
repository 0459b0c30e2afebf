namespace Vmm.Interop.Kvm;

/// <summary>Why KVM cannot be used.</summary>
public enum KvmUnavailableReason
{
    /// <summary>There is no such device file.</summary>
    Missing,
    /// <summary>The caller may not open it.</summary>
    NoPermission,
    /// <summary>The file is something else than KVM.</summary>
    NotKvm,
    /// <summary>KVM speaks another API version than 12, or lacks something this VMM cannot do without.</summary>
    Incompatible,
    /// <summary>open(2) failed for another reason.</summary>
    OpenFailed,
}

/// <summary>KVM cannot be used: says which file, why, and what to do.</summary>
public sealed class KvmUnavailableException(KvmUnavailableReason reason, string message, Exception? cause = null)
    : Exception(message, cause)
{
    /// <summary>The kind of failure.</summary>
    public KvmUnavailableReason Reason { get; } = reason;
}
