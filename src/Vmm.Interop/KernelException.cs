namespace Vmm.Interop;

/// <summary>A system call failed: what was asked, on which object, and the errno the kernel gave.</summary>
public sealed class KernelException : Exception
{
    /// <summary>Creates the error for <paramref name="call"/> (e.g. <c>KVM_CREATE_VM</c>, <c>open /dev/kvm</c>).</summary>
    public KernelException(string call, int errno)
        : base($"{call} failed: {Describe(errno)} (errno {errno})")
    {
        Call = call;
        Errno = errno;
    }

    /// <summary>The call that failed, with its object.</summary>
    public string Call { get; }

    /// <summary>The positive errno value, see errno(3).</summary>
    public int Errno { get; }

    /// <summary>Throws when a shim function answered a negative errno; returns the answer otherwise.</summary>
    public static int ThrowIfError(int answer, string call) => answer < 0 ? throw new KernelException(call, -answer) : answer;

    private static string Describe(int errno) => System.Runtime.InteropServices.Marshal.GetPInvokeErrorMessage(errno);
}
