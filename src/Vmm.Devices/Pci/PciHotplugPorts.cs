using System.Buffers.Binary;
using Vmm.Devices.Bus;

namespace Vmm.Devices.Pci;

/// <summary>
/// What the host and the guest tell each other of the slots of one bus: four registers of 32 bits at ports, bit n for slot n. The methods
/// of the DSDT read them when the interrupt of their generic event device comes (ACPI 6.5 section 5.6.9); a guest without ACPI can use them
/// itself. Only whole registers answer.
/// <list type="table">
/// <item><term>0 ADDED</term><description>A function came into the slot. Writing ones clears them.</description></item>
/// <item><term>4 REMOVAL</term><description>The guest is asked to let go of the slot. Writing ones clears them; the wish
/// stays.</description></item>
/// <item><term>8 EJECT</term><description>Reads which slots can be ejected; writing ones ejects them (_EJ0, ACPI 6.5 section 6.3.3). Others
/// are ignored.</description></item>
/// <item><term>12 GENERATION</term><description>Counts the changes of what is plugged. Read only.</description></item>
/// </list>
/// The interrupt is a level: it is high while ADDED or REMOVAL has a bit, so that a guest that unmasks its pin late in its start still gets
/// it.
/// </summary>
/// <param name="line">Level-triggered: tells the guest to look at the registers. Set under this object's lock, so that its level is never
/// older than the registers.</param>
/// <param name="eject">The guest let go of a slot. On the vCPU thread, without a lock, at most once for each function plugged.</param>
public sealed class PciHotplugPorts(IInterruptLine line, Action<int> eject) : IBusDevice
{
    /// <summary>Number of ports of a bus.</summary>
    public const ulong Length = 16;

    /// <summary>First of the ports of a bus.</summary>
    public static ulong Port(int bus) => 0x620 + (Length * (ulong)bus);

    /// <summary>Offset of a register in bytes.</summary>
    public const ulong AddedOffset = 0, RemovalOffset = 4, EjectOffset = 8, GenerationOffset = 12;

    private readonly Lock _gate = new();
    private uint _added, _removal, _ejectable, _generation;
    private bool _level;

    /// <summary>The guest may eject what is in the slot from now on. For what was there before the guest started: it is not told.</summary>
    public void Allow(int slot)
    {
        lock (_gate)
        {
            _ejectable |= 1u << slot;
        }
    }

    /// <summary>A function was plugged into the slot: the guest is told, and may eject it.</summary>
    public void Added(int slot)
    {
        lock (_gate)
        {
            uint bit = 1u << slot;
            _added |= bit;
            _removal &= ~bit;
            _ejectable |= bit;
            _generation++;
            UpdateLine();
        }
    }

    /// <summary>Asks the guest to let go of the slot, again if it was asked before; false when the guest cannot eject it.</summary>
    public bool AskRemoval(int slot)
    {
        lock (_gate)
        {
            if ((_ejectable & (1u << slot)) == 0)
            {
                return false;
            }

            _removal |= 1u << slot;
            UpdateLine();
        }

        return true;
    }

    /// <summary>
    /// The host takes the slot whether the guest likes it or not. False when the guest ejected it before: then <c>eject</c> is called for
    /// it, or was. The guest is told that something changed in the slot, so that it looks and finds nothing.
    /// </summary>
    public bool Take(int slot)
    {
        lock (_gate)
        {
            uint bit = 1u << slot;
            if ((_ejectable & bit) == 0)
            {
                return false;
            }

            Forget(bit);
        }

        return true;
    }

    /// <summary>Tells the guest to look at a slot that <see cref="Take"/> took, once the function is gone.</summary>
    public void Changed(int slot)
    {
        lock (_gate)
        {
            _added |= 1u << slot;
            UpdateLine();
        }
    }

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Clear();
        if (data.Length != 4)
        {
            return;
        }

        lock (_gate)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(data, offset switch
            {
                AddedOffset => _added,
                RemovalOffset => _removal,
                EjectOffset => _ejectable,
                GenerationOffset => _generation,
                _ => 0,
            });
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (data.Length != 4)
        {
            return;
        }

        uint value = BinaryPrimitives.ReadUInt32LittleEndian(data);
        lock (_gate)
        {
            switch (offset)
            {
                case AddedOffset:
                    _added &= ~value;
                    UpdateLine();
                    return;
                case RemovalOffset:
                    _removal &= ~value;
                    UpdateLine();
                    return;
                case EjectOffset:
                    value &= _ejectable;
                    Forget(value);
                    break;
                default:
                    return;
            }
        }

        for (int slot = 0; slot < PciHostBridge.Slots; slot++)
        {
            if ((value & (1u << slot)) != 0)
            {
                eject(slot);
            }
        }
    }

    /// <summary>The state for saving.</summary>
    public PciHotplugStateV1 Capture()
    {
        lock (_gate)
        {
            return new PciHotplugStateV1 { Added = _added, Removal = _removal, Ejectable = _ejectable, Generation = _generation };
        }
    }

    /// <summary>Takes a saved state, and drives the line as it says.</summary>
    public void Restore(PciHotplugStateV1 state)
    {
        lock (_gate)
        {
            (_added, _removal, _ejectable, _generation) = (state.Added, state.Removal, state.Ejectable, state.Generation);
            UpdateLine();
        }
    }

    private void Forget(uint slots)
    {
        _added &= ~slots;
        _removal &= ~slots;
        _ejectable &= ~slots;
        _generation += slots == 0 ? 0u : 1u;
        UpdateLine();
    }

    private void UpdateLine()
    {
        bool level = (_added | _removal) != 0;
        if (level != _level)
        {
            _level = level;
            line.Set(level);
        }
    }
}
