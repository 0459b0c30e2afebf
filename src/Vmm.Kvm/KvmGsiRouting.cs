using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>
/// The GSI routing table of one VM: which controller pin or message each GSI leads to. Changes take effect with <see cref="Commit"/>.
/// All members lock: MSI-X vectors are written by vCPU threads.
/// </summary>
public sealed class KvmGsiRouting(KvmVm vm)
{
    private const uint TypeIrqChip = 1, TypeMsi = 2;
    private const int PicPins = 8, IoApicPins = 24;

    private readonly Lock _gate = new();
    private readonly List<KvmIrqRoutingEntry> _routes = [];

    /// <summary>Number of routes.</summary>
    public int Count
    {
        get
        {
            lock (_gate)
            {
                return _routes.Count;
            }
        }
    }

    /// <summary>The routes a PC has: GSI 0–15 to both PICs (not 2) and GSI n to I/O APIC pin n, with 0 to pin 2.</summary>
    public void AddPcDefaults()
    {
        for (uint gsi = 0; gsi < IoApicPins; gsi++)
        {
            if (gsi < 2 * PicPins && gsi != 2)
            {
                AddIrqChip(gsi, gsi < PicPins ? IrqChip.PicMaster : IrqChip.PicSlave, gsi % PicPins);
            }

            if (gsi != 2)
            {
                AddIrqChip(gsi, IrqChip.IoApic, gsi == 0 ? 2 : gsi);
            }
        }
    }

    /// <summary>Adds a route to a controller pin; a GSI may lead to several.</summary>
    public void AddIrqChip(uint gsi, IrqChip chip, uint pin)
    {
        lock (_gate)
        {
            _routes.Add(new KvmIrqRoutingEntry { Gsi = gsi, Type = TypeIrqChip, Word0 = (uint)chip, Word1 = pin });
        }
    }

    /// <summary>Makes the GSI send this message and nothing else.</summary>
    public void SetMsi(uint gsi, ulong address, uint data)
    {
        KvmIrqRoutingEntry route = new() { Gsi = gsi, Type = TypeMsi, Word0 = (uint)address, Word1 = (uint)(address >> 32), Word2 = data };
        lock (_gate)
        {
            _routes.RemoveAll(r => r.Gsi == gsi);
            _routes.Add(route);
        }
    }

    /// <summary>Removes every route of the GSI.</summary>
    public void Remove(uint gsi)
    {
        lock (_gate)
        {
            _routes.RemoveAll(r => r.Gsi == gsi);
        }
    }

    /// <summary>Gives the table to the kernel, whole.</summary>
    /// <exception cref="Interop.KernelException">The kernel refused a route.</exception>
    public void Commit()
    {
        lock (_gate)
        {
            vm.SetGsiRouting([.. _routes]);
        }
    }
}
