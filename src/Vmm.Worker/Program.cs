using Vmm.Cpu;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.Worker.Confinement;

namespace Vmm.Worker;

/// <summary>
/// vmm-worker: one VM in one process. Started by vmmd with its end of a packet socketpair as descriptor 3; not for people. With the
/// argument
/// <c>survey</c> it prints what KVM of this host can do, and ends.
/// </summary>
internal static class Program
{
    private const int ControlDescriptor = 3;

    internal static int Main(string[] arguments)
    {
        LossyWriter.UseForErrors();
        if (arguments is [KvmSurvey.Command])
        {
            Console.Out.Write(KvmSurveyor.Take().ToJson());
            return 0;
        }

        if (arguments is not ["--control", .. string[] options])
        {
            Console.Error.WriteLine("vmm-worker is started by vmmd; to run a VM by hand use: vmmctl run");
            return 2;
        }

        try
        {
            ProcessHandle.HardenSelf();
            using PacketSocket first = new(new FileDescriptorHandle(ControlDescriptor));
            using Sandbox sandbox = new(Array.IndexOf(options, "--isolated") >= 0, Array.IndexOf(options, "--no-seccomp") < 0);
            using WorkerService service = new(first, sandbox);
            service.Serve();
            return 0;
        }
#pragma warning disable CA1031 // The last line of defence: the reason goes to the daemon's log, the exit status says that there was one.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            Console.Error.WriteLine($"vmm-worker {Environment.ProcessId}: {cause}");
            return 1;
        }
    }
}
