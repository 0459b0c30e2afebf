using Vmm.State;

namespace Vmm.Devices.Pci;

/// <summary>The functions of all buses, to and from a saved state. Under the lock of <see cref="PciHostBridge"/>.</summary>
/// <param name="buses">The buses, by the numbers they have from the start.</param>
internal sealed class PciStateMap(IReadOnlyList<PciBus> buses)
{
    internal List<PciFunctionStateV1> Capture() =>
        [.. Functions().Select(f => new PciFunctionStateV1
        {
            Bus = (byte)f.At.Bus, Slot = (byte)f.At.Slot, Function = (byte)f.At.Function,
            Identity = f.Function.Identity, Written = f.Function.CaptureConfig(),
        })];

    /// <summary>
    /// Functions have to be where they were, each the same as before. Bridges come first: what is behind them needs their windows.
    /// </summary>
    /// <exception cref="StateException">They are not.</exception>
    internal void Restore(IReadOnlyList<PciFunctionStateV1> saved)
    {
        List<(PciFunction Function, byte[] Written)> pairs = Match(saved);
        foreach ((PciFunction function, _) in pairs.Where(p => p.Function is not PciBridge))
        {
            function.StopDecoding();
        }

        foreach ((PciFunction function, byte[] written) in pairs.OrderBy(p => p.Function is not PciBridge))
        {
            function.RestoreConfig(written);
        }
    }

    private List<(PciFunction Function, byte[] Written)> Match(IReadOnlyList<PciFunctionStateV1> saved)
    {
        Dictionary<PciAddress, PciFunctionStateV1> byPlace = [];
        foreach (PciFunctionStateV1 function in saved)
        {
            PciAddress at = new(function.Bus, function.Slot, function.Function);
            if (!byPlace.TryAdd(at, function))
            {
                throw new StateException($"{PciStateV1.Kind}: {at} is there twice");
            }
        }

        List<(PciFunction Function, byte[] Written)> pairs = [];
        foreach ((PciAddress at, PciFunction function) in Functions())
        {
            if (!byPlace.Remove(at, out PciFunctionStateV1? state) || state.Identity != function.Identity)
            {
                string other = state is null ? "nothing was there" : $"0x{state.Identity:x8} was there";
                throw new StateException($"{PciStateV1.Kind}: {at} holds '{function.Name}' (0x{function.Identity:x8}), {other}");
            }

            int length = function.CaptureConfig().Length;
            if (state.Written.Length != length)
            {
                throw new StateException(
                    $"{PciStateV1.Kind}: '{function.Name}' has {state.Written.Length} bytes of configuration, not {length}");
            }

            pairs.Add((function, state.Written));
        }

        return byPlace.Count == 0 ? pairs : throw new StateException($"{PciStateV1.Kind}: nothing is at {byPlace.First().Key} here");
    }

    private IEnumerable<(PciAddress At, PciFunction Function)> Functions()
    {
        for (int bus = 0; bus < buses.Count; bus++)
        {
            for (int slot = 0; slot < buses[bus].Slots; slot++)
            {
                for (int number = 0; number < PciBus.FunctionsPerSlot; number++)
                {
                    if (buses[bus][slot, number] is { } function)
                    {
                        yield return (new PciAddress(bus, slot, number), function);
                    }
                }
            }
        }
    }
}
