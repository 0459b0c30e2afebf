using Vmm.State;

namespace Vmm.Devices.Pci;

/// <summary>
/// Devices that come and go behind PCI Express root ports: the host's half. A port is named by the bus behind it. Any thread.
/// </summary>
public sealed class PciPortHotplug
{
    private readonly PciHostBridge _bridge;

    /// <param name="bridge">The bridge that has the ports. It has no other of these.</param>
    /// <param name="eject">The guest let go of the device behind a port that it was asked for. On the thread of whoever did the last step,
    /// a vCPU's or the host's, without a lock of the bridge, at most once for each device.</param>
    public PciPortHotplug(PciHostBridge bridge, Action<int> eject)
    {
        _bridge = bridge;
        bridge.Ejected = eject;
    }

    /// <summary>The device behind the port is there from the start: it has power.</summary>
    public void Allow(int bus) => _bridge.WithPort(bus, port => port.Populate());

    /// <summary>A device was plugged behind the port: the guest is told.</summary>
    public void Added(int bus) => _bridge.WithPort(bus, port => port.Insert());

    /// <summary>Asks the guest to let go of the device behind the port, again if it was asked before; false when there is none.</summary>
    public bool AskRemoval(int bus) => _bridge.WithPort(bus, port => port.Ask());

    /// <summary>
    /// The host takes the device behind the port whether the guest likes it or not, which is told that it is gone. False when the guest let
    /// go of it before: then <c>eject</c> is called for it, or was.
    /// </summary>
    public bool Take(int bus) => _bridge.WithPort(bus, port => port.Take());

    /// <summary>The state for saving: what the registers of the ports do not say.</summary>
    public PciPortsStateV1 Capture()
    {
        List<byte> leaving = [], toPress = [];
        for (int bus = 1; bus < _bridge.Buses; bus++)
        {
            if (_bridge.WithPort(bus, port => port.IsLeaving))
            {
                leaving.Add((byte)bus);
            }

            if (_bridge.WithPort(bus, port => port.IsToPress))
            {
                toPress.Add((byte)bus);
            }
        }

        return new PciPortsStateV1 { Leaving = leaving, ToPress = toPress };
    }

    /// <summary>Takes a saved state, after that of the bridge.</summary>
    /// <exception cref="StateException">It names a port that does not exist.</exception>
    public void Restore(PciPortsStateV1 state)
    {
        foreach (byte bus in state.Leaving)
        {
            if (bus == 0 || bus >= _bridge.Buses)
            {
                throw new StateException($"{PciPortsStateV1.Kind}: no port leads to bus {bus}");
            }

            _bridge.WithPort(bus, port => port.RestoreLeaving(state.ToPress.Contains(bus)));
        }
    }
}
