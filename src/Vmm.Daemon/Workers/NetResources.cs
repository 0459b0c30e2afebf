using Vmm.Contracts.Control;
using Vmm.Daemon.Vms;
using Vmm.HostNet;
using Vmm.Interop;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>Opens what is behind the network devices of a VM, to be passed to its worker.</summary>
/// <param name="access">What the daemon may open.</param>
/// <param name="into">Where descriptors go.</param>
internal sealed class NetResources(DiskAccess access, WorkerResources into)
{
    /// <summary>What somebody may want to know, a line each.</summary>
    internal List<string> Remarks { get; } = [];

    /// <summary>True when a device is no tap of its spec: its worker is to know that.</summary>
    internal bool HasOthers { get; private set; }

    /// <summary>
    /// Name of the VM: its devices have their MAC addresses of it. Of a device that is attached, the MAC address is said.
    /// </summary>
    internal string VmName { get; set; } = "";

    /// <summary>Opens the queues of a network device, and what moves its frames in the kernel.</summary>
    /// <exception cref="WorkerException">They cannot be opened.</exception>
    internal void Add(int index, NetSpec spec)
    {
        if (spec.User is not null)
        {
            AddUserNet(index, spec);
            return;
        }

        try
        {
            if ((spec.Bridge ?? spec.Network ?? spec.Macvtap) is null)
            {
                for (int queue = 0; queue < spec.Queues; queue++)
                {
                    into.Add(ResourceNames.NetQueue(index, queue), TapQueue.Open(spec.Tap, multiQueue: spec.Queues > 1).Handle);
                }
            }
            else
            {
                AddBridgeTap(index, spec);
            }

            if (VhostChoice.Wanted(spec))
            {
                AddVhost(index, spec);
            }
        }
        catch (TapException cause)
        {
            throw new WorkerException(ControlCodes.NetOpenFailed, cause.Message, cause);
        }
        catch (HostNetException cause)
        {
            throw new WorkerException(ControlCodes.NetOpenFailed, $"net{index}: {cause.Message}", cause);
        }
    }

    private void AddBridgeTap(int index, NetSpec spec)
    {
        string alias = TapCounters.AliasOf(access.VmId);
        IReadOnlyList<TapQueue> queues;
        if (spec.Network is { } name)
        {
            (NetSpec onBridge, PrivateNetwork network) = (access.Networks ?? throw new HostNetException("nobody keeps private networks"))(
                access.VmId, spec, index);
            queues = BridgeTap.Open(onBridge, network.TapAlias(alias), spec.AntiSpoof == true ? null : problem => Remarks.Add(
                $"net{index} on network {name} is not held to its address: {problem}"), served: true);
        }
        else
        {
            queues = spec.Macvtap is null ? BridgeTap.Open(spec, alias)
                : Macvtap.Open(spec with { Mac = MacAddress.Of(spec, VmName, index) }, alias);
        }

        for (int queue = 0; queue < queues.Count; queue++)
        {
            into.Add(ResourceNames.NetQueue(index, queue), queues[queue].Handle);
        }

        HasOthers = true;
    }

    private void AddUserNet(int index, NetSpec spec)
    {
        try
        {
            into.Add(ResourceNames.NetQueue(index, 0), new PasstProcess(spec).Start());
            HasOthers = true;
        }
        catch (HostNetException cause)
        {
            throw new WorkerException(ControlCodes.NetOpenFailed, $"net{index}: {cause.Message}", cause);
        }
    }

    private void AddVhost(int index, NetSpec spec)
    {
        try
        {
            FileDescriptorHandle[] opened = new FileDescriptorHandle[spec.Queues];
            for (int queue = 0; queue < opened.Length; queue++)
            {
                opened[queue] = VhostNet.OpenDescriptor();
                into.Own(opened[queue]);
            }

            for (int queue = 0; queue < opened.Length; queue++)
            {
                into.Name(ResourceNames.NetVhost(index, queue), opened[queue]);
            }
        }
        catch (KernelException cause) when (spec.Vhost == VhostUse.On)
        {
            throw VhostChoice.Missing(spec, cause);
        }
        catch (KernelException cause)
        {
            _ = cause; // auto: the worker moves the frames itself
        }
    }
}
