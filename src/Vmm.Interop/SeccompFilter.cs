using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Vmm.Interop;

/// <summary>
/// What becomes of a system call (SECCOMP_RET_*, seccomp(2)). Where several filters disagree the kernel takes the strictest.
/// </summary>
public enum SyscallAction : uint
{
    /// <summary>The kernel ends the process with SIGSYS.</summary>
    KillProcess = 0x8000_0000,

    /// <summary>Fails with EPERM.</summary>
    Refuse = 0x0005_0001,

    /// <summary>Fails with ENOSYS, as on an older kernel: the caller takes another way.</summary>
    Missing = 0x0005_0026,

    /// <summary>Done.</summary>
    Allow = 0x7fff_0000,
}

/// <summary>A condition of a rule: the bits <paramref name="Mask"/> of one argument are <paramref name="Value"/>.</summary>
/// <param name="Argument">0 to 5.</param>
/// <param name="Mask">Bits to look at; the kernel looks at 32 of them for arguments that are int.</param>
/// <param name="Value">What they must be.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct SyscallTest(ulong Argument, ulong Mask, ulong Value)
{
    /// <summary>The low 32 bits of an argument are a value: for arguments that the kernel takes as int, whatever lies above.</summary>
    public static SyscallTest Int(int argument, uint value) => new((ulong)argument, uint.MaxValue, value);
}

/// <summary>Collects the rules of a filter, by names of system calls. One thread uses it.</summary>
public sealed class SeccompFilterBuilder : IDisposable
{
    private nint _context;

    /// <summary>A filter without rules: <paramref name="otherwise"/> is done with every call.</summary>
    /// <exception cref="KernelException">libseccomp.so.2 is not there (ELIBACC), or out of memory.</exception>
    public SeccompFilterBuilder(SyscallAction otherwise)
    {
        _context = Native.SeccompCreate((uint)otherwise, out int errno);
        if (_context == -1)
        {
            _context = 0;
            throw new KernelException("seccomp_init (libseccomp.so.2)", errno);
        }
    }

    /// <summary>
    /// Adds a rule; it counts when all <paramref name="tests"/> hold. False: the system's libseccomp does not know the call.
    /// </summary>
    /// <exception cref="KernelException">The rule is not accepted, e.g. because it says what the default does.</exception>
    public bool TryAdd(string call, SyscallAction action, params ReadOnlySpan<SyscallTest> tests)
    {
        ObjectDisposedException.ThrowIf(_context == 0, this);
        int answer = Native.SeccompAdd(_context, call, (uint)action, tests, (uint)tests.Length);
        return answer != -Errno.ENOENT && KernelException.ThrowIfError(answer, $"seccomp rule for {call}") == 0;
    }

    /// <summary>The filter of the rules so far.</summary>
    /// <exception cref="KernelException">Too long, or out of memory.</exception>
    public SeccompFilter Build()
    {
        ObjectDisposedException.ThrowIf(_context == 0, this);
        nint program = Native.SeccompCompile(_context, out int errno);
        return program == -1 ? throw new KernelException("seccomp_export_bpf", errno) : new SeccompFilter(program);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_context != 0)
        {
            Native.SeccompDiscard(_context);
            _context = 0;
        }
    }
}

/// <summary>
/// A compiled filter of system calls; loading it does not use it up. A loaded filter stays: on its thread, and on every thread that one
/// starts.
/// </summary>
public sealed class SeccompFilter : SafeHandleMinusOneIsInvalid
{
    internal SeccompFilter(nint program) : base(ownsHandle: true) => SetHandle(program);

    /// <summary>Length in instructions of the kernel's filter machine.</summary>
    public int Length => Native.SeccompLength(this);

    /// <summary>Puts the calling thread under the filter, beside those it has.</summary>
    /// <exception cref="KernelException">Not permitted (no no_new_privs), or too many filters.</exception>
    public void LoadOnThread() => KernelException.ThrowIfError(Native.SeccompLoad(this, 0, 0), "seccomp");

    /// <summary>Puts every thread of the process under the filter, at once.</summary>
    /// <param name="logged">The kernel's audit log tells of what it refuses.</param>
    /// <exception cref="KernelException">ESRCH: a thread has a filter that this one does not have.</exception>
    public void LoadOnProcess(bool logged) =>
        KernelException.ThrowIfError(Native.SeccompLoad(this, 1, logged ? 1 : 0), "seccomp for all threads");

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Native.SeccompFree(handle) == 0;
}
