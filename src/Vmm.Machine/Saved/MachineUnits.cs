using Vmm.Devices;
using Vmm.Devices.Firmware;
using Vmm.Devices.Legacy;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Mem;
using Vmm.Kvm;
using Vmm.Machine.Build;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Run;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>The units of a machine as it is now.</summary>
internal static class MachineUnits
{
    private static readonly PartId s_pci = new("pci"), s_irqchip = new("irqchip"), s_serial = new("serial");

    /// <summary>Registers them all.</summary>
    /// <param name="machine">The machine, without a plug or unplug under way.</param>
    /// <param name="atRest">Nothing of it works yet, as in one that is to be restored.</param>
    /// <exception cref="InvalidOperationException">A device is being removed.</exception>
    internal static UnitRegistry Of(VirtualMachine machine, bool atRest) => Of(machine, atRest, partial: false);

    /// <summary>As the other, to be looked at only: a device that is on its way out is left out.</summary>
    internal static UnitRegistry Present(VirtualMachine machine, bool atRest) => Of(machine, atRest, partial: true);

    private static UnitRegistry Of(VirtualMachine machine, bool atRest, bool partial)
    {
        UnitRegistry units = new();
        units.Register(new ClockPart(machine.Board.Clock), atRest);
        List<PartId> vcpus = [], memories = [];
        foreach (AttachedDevice device in machine.DeviceSet.All)
        {
            if (device.Device is VirtioMem)
            {
                memories.Add(NameOf(device));
            }
        }

        for (int i = 0; i < machine.Vcpus.Count; i++)
        {
            units.Register(new VcpuPart(i, machine.Vcpus[i], memories), atRest);
            vcpus.Add(VcpuPart.NameOf(i));
        }

        if (vcpus.Count > 1)
        {
            units.Register(new TscPart(machine.Vcpus, vcpus), atRest);
        }

        // After the local APICs: what is pending in the I/O APIC is delivered when its state comes.
        units.Register(
            new RegisterPart<KvmIrqchipStateV1>(
                s_irqchip, KvmStates.Irqchip, () => KvmIrqchipStateV1.Capture(machine.Vm), s => s.Restore(machine.Vm), vcpus),
            atRest);
        units.Register(
            new RegisterPart<KvmPitStateV1>(
                new PartId("pit"), KvmStates.Pit, () => KvmPitStateV1.Capture(machine.Vm), s => s.Restore(machine.Vm), s_irqchip),
            atRest);
        AddPlatform(units, machine, atRest);
        AddDevices(units, machine, atRest, partial);
        return units;
    }

    private static PartId NameOf(AttachedDevice device) => new("device/" + device.Id);

    private static void AddPlatform(UnitRegistry units, VirtualMachine machine, bool atRest)
    {
        PlatformDevices platform = machine.Platform;
        if (platform.Serial is { } serial)
        {
            units.Register(new RegisterPart<UartStateV1>(s_serial, DeviceStates.Uart, serial.Capture, serial.Restore), atRest);
        }

        I8042 keyboard = platform.Keyboard;
        units.Register(
            new RegisterPart<KeyboardControllerStateV1>(
                new PartId("keyboard"), DeviceStates.KeyboardController, keyboard.Capture, keyboard.Restore),
            atRest);
        CmosRtc rtc = platform.Rtc;
        units.Register(new RegisterPart<RtcStateV1>(new PartId("rtc"), DeviceStates.Rtc, rtc.Capture, rtc.Restore), atRest);
        if (machine.Board.Firmware is { } firmware)
        {
            units.Register(
                new RegisterPart<FwCfgStateV1>(
                    new PartId("firmware-configuration"),
                    DeviceStates.FwCfg,
                    firmware.Configuration.Capture,
                    firmware.Configuration.Restore),
                atRest);
            units.Register(
                new RegisterPart<CfiFlashStateV1>(
                    new PartId("firmware-variables"), DeviceStates.Flash, firmware.Flash.Capture, firmware.Flash.Restore),
                atRest);
        }

        ResetControl reset = machine.Board.ResetControl!;
        units.Register(
            new RegisterPart<ResetControlStateV1>(
                new PartId("reset-control"), DeviceStates.ResetControl, reset.Capture, reset.Restore),
            atRest);
    }

    private static void AddDevices(UnitRegistry units, VirtualMachine machine, bool atRest, bool partial)
    {
        DeviceSet devices = machine.DeviceSet;
        PciHostBridge bridge = devices.Slots.Bridge;
        units.Register(new RegisterPart<PciStateV1>(s_pci, DeviceStates.Pci, bridge.Capture, bridge.Restore), atRest);
        devices.Hotplug.Register(units, s_pci, atRest);

        List<PartId> names = [];
        foreach (AttachedDevice device in devices.All)
        {
            if (devices.Slots.Find(device) is not (var transport, var vectors))
            {
                if (partial)
                {
                    continue;
                }

                throw new InvalidOperationException($"{device.Id} is being removed: wait until it is gone");
            }

            names.Add(NameOf(device));
            units.Register(new VirtioPart(NameOf(device), transport, vectors, s_pci), atRest);
        }

        units.Register(new MemoryUnit(machine, names), atRest);
        if (machine.Platform.Serial is not null)
        {
            names.Add(s_serial);
        }

        units.Register(new ConsoleInputPart(machine.Feed, names), atRest);
    }
}
