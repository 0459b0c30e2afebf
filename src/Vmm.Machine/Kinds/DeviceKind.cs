using Vmm.Devices.Virtio;
using Vmm.Machine.Build;
using Vmm.Machine.Description;
using Vmm.Spec;

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
}
