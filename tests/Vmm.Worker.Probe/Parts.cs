using Vmm.Devices.Virtio.Rng;
using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Machine.Run;

namespace Vmm.Worker.Probe;

/// <summary>Devices by what they ask for.</summary>
internal static class Parts
{
    private static readonly SyscallNeeds s_net = TapQueue.Needs + VhostNet.Needs;
    private static readonly SyscallNeeds s_mem = new([], [(uint)KvmRequest.KVM_SET_USER_MEMORY_REGION]);

    /// <summary>A machine with memory that comes and goes, beside what can come to any.</summary>
    private static MachineNeeds Whole => MachineNeeds.Pluggable with { Threads = MachineNeeds.Pluggable.Threads + Threads("io") };

    /// <summary>The machine that threads of a kind belong to.</summary>
    internal static MachineNeeds MachineOf(string kind) => kind switch
    {
        "small-control" or "small-vcpu" => MachineNeeds.Pluggable,
        "firmware-vcpu" => MachineNeeds.Pluggable.WithFirmware(),
        _ => Whole,
    };

    internal static SyscallNeeds Threads(string device)
    {
        switch (device)
        {
            case "rng":
                using (VirtioRng rng = new())
                {
                    return rng.ThreadNeeds;
                }

            case "disk":
                return BlockFile.Needs;
            case "image":
                return BlockFile.ImageNeeds;
            case "net":
                return s_net;
            case "vsock":
                return UnixStream.Needs;
            case "mem":
                return s_mem;
            default:
                return BlockFile.Needs + s_net + UnixStream.Needs + s_mem;
        }
    }
}
