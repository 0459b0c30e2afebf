using System.Diagnostics;
using Vmm.Interop;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>What stands behind a KVM device.</summary>
public enum KvmKind
{
    /// <summary>A processor with VMX or SVM: guest kernels run at native speed.</summary>
    Hardware,
    /// <summary>No such processor: guest code at CPL 0 is emulated one instruction at a time; only CPL 3 is fast.</summary>
    Emulating,
}

/// <summary>Tells the two kinds of KVM apart.</summary>
public static class KvmKindProbe
{
    // Emulation costs about 500 ns an instruction, a processor (even one emulated by QEMU) below 5 ns: a wide gap.
    private const double EmulatingNanosecondsPerInstruction = 50;
    private const ushort Iterations = 8000;

    // Real mode at 0x1000: mov cx, N; l: dec cx; jnz l; out 0x80, al; hlt. One run is 2 N + 1 instructions.
    private static readonly byte[] Loop = [0xb9, unchecked((byte)Iterations), Iterations >> 8, 0x49, 0x75, 0xfd, 0xe6, 0x80, 0xf4];

    /// <summary>
    /// vmx or svm in /proc/cpuinfo means hardware; otherwise a short CPL 0 loop in a throw-away VM is timed (about 25 ms when emulated).
    /// </summary>
    /// <exception cref="KernelException">The throw-away VM cannot be made.</exception>
    public static KvmKind Detect(KvmSystem system) =>
        CpuHasVirtualization() || TimeGuestLoop(system) < EmulatingNanosecondsPerInstruction ? KvmKind.Hardware : KvmKind.Emulating;

    private static bool CpuHasVirtualization()
    {
        try
        {
            foreach (string line in File.ReadLines("/proc/cpuinfo"))
            {
                if (line.StartsWith("flags", StringComparison.Ordinal))
                {
                    string[] flags = line.Split([' ', '\t', ':'], StringSplitOptions.RemoveEmptyEntries);
                    return flags.Contains("vmx", StringComparer.Ordinal) || flags.Contains("svm", StringComparer.Ordinal);
                }
            }
        }
        catch (IOException)
        {
            // No /proc: the loop decides.
        }

        return false;
    }

    /// <summary>Nanoseconds per instruction, the best of two runs (the first also faults pages in).</summary>
    internal static double TimeGuestLoop(KvmSystem system)
    {
        using AnonymousMapping memory = new(0x2000);
        using KvmVm vm = system.CreateVm();
        vm.SetMemorySlot(0, 0, memory.Length, memory.Address);
        Loop.CopyTo(memory.Slice(0x1000, Loop.Length));
        using KvmVcpu vcpu = vm.CreateVcpu(0);
        KvmSregs sregs = vcpu.GetSregs();
        sregs.Cs.Base = 0;
        sregs.Cs.Selector = 0;
        vcpu.SetSregs(sregs);
        double best = double.MaxValue;
        for (int attempt = 0; attempt < 2; attempt++)
        {
            vcpu.SetRegs(new KvmRegs { Rip = 0x1000, Rflags = 2 });
            long start = Stopwatch.GetTimestamp();
            KvmExit exit;
            do
            {
                exit = vcpu.Run();
            }
            while (exit == KvmExit.Interrupted);
            double elapsed = Stopwatch.GetElapsedTime(start).TotalNanoseconds;
            if (exit != KvmExit.Io)
            {
                throw new InvalidOperationException($"The probe guest ended with {exit} instead of its port write.");
            }

            best = Math.Min(best, elapsed / ((2 * Iterations) + 1));
            vcpu.CompletePendingIo();
        }

        return best;
    }
}
