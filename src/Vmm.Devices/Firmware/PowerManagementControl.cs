using System.Buffers.Binary;
using Vmm.Devices.Bus;

namespace Vmm.Devices.Firmware;

/// <summary>
/// PM1_CNT of Intel's ICH9 (datasheet 13.8.3.3) at two ports: how a firmware for that chipset switches its machine off. Nothing else of
/// it is here: the tables of the machine name other registers.
/// </summary>
/// <param name="powerOff">Called on the vCPU thread that asks for it.</param>
public sealed class PowerManagementControl(Action powerOff) : IBusDevice
{
    /// <summary>First of its ports: 4 behind PMBASE.</summary>
    public const ulong Port = Pci.LpcBridge.PowerManagementPorts + 4;

    /// <summary>Number of its ports.</summary>
    public const ulong Length = 2;

    private const int SleepTypeBits = 0x1C00, SleepEnable = 0x2000; // soft off is type 0, as edk2 has it for this chipset

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data) => data.Clear();

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset == 0 && data.Length == 2)
        {
            int value = BinaryPrimitives.ReadUInt16LittleEndian(data);
            if ((value & SleepEnable) != 0 && (value & SleepTypeBits) == 0)
            {
                powerOff();
            }
        }
    }
}
