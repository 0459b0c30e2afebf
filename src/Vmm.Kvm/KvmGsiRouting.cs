using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>
/// The GSI routing table of one VM: which controller pin or message each GSI leads to. Changes take effect with <see cref="Commit"/>. All
/// members lock: MSI-X vectors are written by vCPU threads.
/// </summary>
public sealed class KvmGsiRouting(KvmVm vm)
{
    private const uint TypeIrqChip = 1, TypeMsi = 2;
    private const int PicPins = 8, IoApicPins = 24;

    private readonly Lock _gate = new();
    // an array: a list of our own struct would be compiled at every start
    private KvmIrqRoutingEntry[] _routes = new KvmIrqRoutingEntry[64];
    private int _count;

    /// <summary>Number of routes.</summary>
    public int Count
    {
        get
        {
            lock (_gate)
            {
                return _count;
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
            Add(new KvmIrqRoutingEntry { Gsi = gsi, Type = TypeIrqChip, Word0 = (uint)chip, Word1 = pin });
        }
    }

    /// <summary>Makes the GSI send this message and nothing else.</summary>
    public void SetMsi(uint gsi, ulong address, uint data)
    {
        KvmIrqRoutingEntry route = new() { Gsi = gsi, Type = TypeMsi, Word0 = (uint)address, Word1 = (uint)(address >> 32), Word2 = data };
        lock (_gate)
        {
            RemoveAll(gsi);
            Add(route);
        }
    }

    /// <summary>Removes every route of the GSI.</summary>
    public void Remove(uint gsi)
    {
        lock (_gate)
        {
            RemoveAll(gsi);
        }
    }

    /// <summary>Gives the table to the kernel, whole.</summary>
    /// <exception cref="Interop.KernelException">The kernel refused a route.</exception>
    public void Commit()
    {
        lock (_gate)
        {
            vm.SetGsiRouting(_routes.AsSpan(0, _count));
        }
    }

    private void Add(KvmIrqRoutingEntry route)
    {
        if (_count == _routes.Length)
        {
            KvmIrqRoutingEntry[] larger = new KvmIrqRoutingEntry[2 * _count];
            _routes.CopyTo(larger, 0);
            _routes = larger;
        }

        _routes[_count++] = route;
    }

    private void RemoveAll(uint gsi)
    {
        int kept = 0;
        for (int i = 0; i < _count; i++)
        {
            if (_routes[i].Gsi != gsi)
            {
                _routes[kept++] = _routes[i];
            }
        }

        _count = kept;
    }
}
