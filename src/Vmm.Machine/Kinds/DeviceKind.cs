using Vmm.Devices.Virtio;
using Vmm.Machine.Build;
using Vmm.Machine.Description;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Spec.Devices;

namespace Vmm.Machine.Kinds;

/// <summary>A device that a spec asks for.</summary>
/// <param name="Id">Its name in the machine.</param>
/// <param name="Transport">How it is attached.</param>
/// <param name="Vnode">The vnode that it is near to, or whose memory it is.</param>
internal readonly record struct DevicePlan(string Id, Spec.VirtioTransport Transport, int? Vnode = null);

/// <summary>What a device is built from.</summary>
/// <param name="Description">What it is and where.</param>
/// <param name="Index">Its number among the devices of its kind in the machine description.</param>
/// <param name="Machine">The plan of the whole machine.</param>
/// <param name="Board">What it is connected to.</param>
internal sealed record DeviceSetup(DeviceDescription Description, int Index, MachineDescription Machine, Board Board)
{
    /// <summary>The spec.</summary>
    internal VmSpec Spec => Machine.Spec;
}

/// <summary>A kind of virtio device: which of them a spec asks for, and how one is built.</summary>
internal sealed class DeviceKind
{
    /// <summary>Its name in machine descriptions and saved state.</summary>
    internal required string Name { get; init; }

    /// <summary>The field of the spec that asks for it.</summary>
    internal required string Section { get; init; }

    /// <summary>The devices of a spec, in guest order.</summary>
    internal required Func<VmSpec, IEnumerable<DevicePlan>> Plan { get; init; }

    /// <summary>Builds one, as after a reset. What it opened is closed when this throws.</summary>
    internal required Func<DeviceSetup, VirtioDevice> Build { get; init; }

    /// <summary>It has shared memory in a BAR: bridges have no room for that, so it is on bus 0.</summary>
    internal bool OnRootBus { get; init; }

    /// <summary>Its devices can come and go while the guest runs.</summary>
    internal bool ComesAndGoes { get; init; }

    /// <summary>A kind whose devices are entries of <c>devices</c>: named by kind and number, on PCI.</summary>
    /// <param name="name">The kind.</param>
    /// <param name="onRootBus">It has shared memory in a BAR.</param>
    /// <param name="build">Makes one from what it is connected to, its spec and its files, which are the device's from then on, also when
    /// this throws.</param>
    internal static DeviceKind OfDevices<T>(string name, bool onRootBus, Func<DeviceSetup, T, FileDescriptorHandle[], VirtioDevice> build)
        where T : DeviceSpec => new()
        {
            Name = name,
            Section = "devices",
            OnRootBus = onRootBus,
            Plan = spec => spec.Devices.OfType<T>().Select((_, i) => new DevicePlan($"{name}{i}", Spec.VirtioTransport.Pci)),
            Build = setup =>
            {
                T wanted = setup.Spec.Devices.OfType<T>().ElementAt(setup.Index);
                return build(setup, wanted, Open(setup, wanted));
            },
        };

    /// <summary>The number of an entry of <c>devices</c>.</summary>
    internal static int EntryOf(DeviceSetup setup, DeviceSpec wanted)
    {
        int entry = 0;
        while (!ReferenceEquals(setup.Spec.Devices[entry], wanted))
        {
            entry++;
        }

        return entry;
    }

    private static FileDescriptorHandle[] Open(DeviceSetup setup, DeviceSpec wanted)
    {
        int entry = EntryOf(setup, wanted);
        List<FileDescriptorHandle> files = [];
        try
        {
            foreach (DeviceFile file in wanted.Files)
            {
                files.Add(setup.Board.Resources.OpenDeviceFile(entry, file));
            }

            return [.. files];
        }
        catch
        {
            files.ForEach(file => file.Dispose());
            throw;
        }
    }
}
