namespace Vmm.Daemon.Pressure;

/// <summary>
/// Shares an amount by weight: all vessels are brought to one level, which is bytes for each unit of weight, as far as their bounds let
/// them. Whoever has most for its weight gives first, whoever has least gets first. Pure; the same vessels give the same level.
/// </summary>
internal static class WaterLevel
{
    private const int Halvings = 80;

    /// <summary>What one has.</summary>
    /// <param name="From">Bytes.</param>
    /// <param name="Bound">Bytes that it can come to: less than it has when something is taken, more when something is given.</param>
    /// <param name="Weight">Above 0.</param>
    /// <param name="Share">How much of a byte counts, 0 to 1.</param>
    internal readonly record struct Vessel(ulong From, ulong Bound, double Weight, double Share = 1)
    {
        /// <summary>Bytes at a level when something is taken.</summary>
        internal ulong Down(double level) => Math.Min(From, Math.Max(Bound, Bytes(level)));

        /// <summary>Bytes at a level when something is given.</summary>
        internal ulong Up(double level) => Math.Max(From, Math.Min(Bound, Bytes(level)));

        private ulong Bytes(double level) => (ulong)Math.Min(level * Weight, 1UL << 62);
    }

    /// <summary>The highest level that yields the amount; 0, and all bounds are reached, when nothing does.</summary>
    internal static double Taking(IReadOnlyList<Vessel> vessels, double amount)
    {
        (double enough, double tooLittle) = (0, Highest(vessels.Select(v => v.From / v.Weight)));
        for (int i = 0; i < Halvings; i++)
        {
            double middle = (enough + tooLittle) / 2;
            if (vessels.Sum(v => (v.From - v.Down(middle)) * v.Share) >= amount)
            {
                enough = middle;
            }
            else
            {
                tooLittle = middle;
            }
        }

        return enough;
    }

    /// <summary>The highest level that costs no more than the amount.</summary>
    internal static double Giving(IReadOnlyList<Vessel> vessels, double amount)
    {
        (double fits, double tooMuch) = (0, Highest(vessels.Select(v => v.Bound / v.Weight)));
        if (Cost(tooMuch) <= amount)
        {
            return tooMuch;
        }

        for (int i = 0; i < Halvings; i++)
        {
            double middle = (fits + tooMuch) / 2;
            (fits, tooMuch) = Cost(middle) <= amount ? (middle, tooMuch) : (fits, middle);
        }

        return fits;

        double Cost(double level) => vessels.Sum(v => (v.Up(level) - v.From) * v.Share);
    }

    // A little more, so that rounding leaves nobody below its bound at the top.
    private static double Highest(IEnumerable<double> levels) => levels.DefaultIfEmpty(0).Max() * (1 + 1e-9) + 1;
}
