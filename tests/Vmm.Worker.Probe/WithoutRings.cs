using System.Runtime.InteropServices;
using Vmm.Interop;

namespace Vmm.Worker.Probe;

/// <summary>A process, and what it starts, that gets EPERM from io_uring_setup.</summary>
internal static class WithoutRings
{
    internal static unsafe Exception Become(string[] command)
    {
        using SeccompFilterBuilder builder = new(SyscallAction.Allow);
        builder.TryAdd("io_uring_setup", SyscallAction.Refuse);
        using SeccompFilter filter = builder.Build();
        filter.LoadOnProcess(logged: false);
        nint* argv = (nint*)NativeMemory.AllocZeroed((nuint)(command.Length + 1), (nuint)sizeof(nint));
        nint* envp = (nint*)NativeMemory.AllocZeroed(1, (nuint)sizeof(nint));
        for (int i = 0; i < command.Length; i++)
        {
            argv[i] = Marshal.StringToHGlobalAnsi(command[i]);
        }

        Libc.SystemCall(59 /* execve */, argv[0], (nint)argv, (nint)envp, 0, 0, 0);
        return new KernelException("execve", Marshal.GetLastPInvokeError());
    }
}
