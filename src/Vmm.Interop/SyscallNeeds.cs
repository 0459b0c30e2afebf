namespace Vmm.Interop;

/// <summary>
/// What a part of a VM asks of the kernel once the VM is built, beyond what every thread does: system calls by name, and request numbers of
/// ioctl(2). Filters are made of the needs of the parts that a VM has (Vmm.Worker/Confinement).
/// </summary>
/// <param name="calls">Names of system calls, as libseccomp knows them.</param>
/// <param name="ioctls">Request numbers of ioctl(2).</param>
public sealed class SyscallNeeds(IReadOnlyCollection<string> calls, IReadOnlyCollection<uint> ioctls)
{
    /// <summary>Nothing.</summary>
    public static SyscallNeeds None { get; } = new([], []);

    /// <summary>Names of system calls, as libseccomp knows them.</summary>
    public IReadOnlyCollection<string> Calls => calls;

    /// <summary>Request numbers of ioctl(2).</summary>
    public IReadOnlyCollection<uint> Ioctls => ioctls;

    /// <summary>What one or the other asks for.</summary>
    public static SyscallNeeds operator +(SyscallNeeds one, SyscallNeeds other)
    {
        if (one == None || one == other)
        {
            return other;
        }

        return other == None ? one : new([.. one.Calls.Union(other.Calls, StringComparer.Ordinal)], [.. one.Ioctls.Union(other.Ioctls)]);
    }

    /// <summary>Whoever may do this may do the other.</summary>
    public bool Covers(SyscallNeeds other) =>
        other.Calls.All(call => calls.Contains(call, StringComparer.Ordinal)) && other.Ioctls.All(ioctls.Contains);

    /// <summary>As the operator.</summary>
    public static SyscallNeeds Add(SyscallNeeds one, SyscallNeeds other) => one + other;
}
