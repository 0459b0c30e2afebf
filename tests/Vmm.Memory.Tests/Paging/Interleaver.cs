namespace Vmm.Memory.Tests.Paging;

/// <summary>
/// Runs threads one at a time, and at each turn lets a random one go on: a seed gives the same interleaving again. A thread that ends in an
/// exception fails the run.
/// </summary>
internal sealed class Interleaver : IDisposable
{
    private const int MostTurns = 100_000;
    private readonly Random _random;
    private readonly List<SemaphoreSlim> _gates = [];
    private readonly List<int> _alive = [];
    private readonly SemaphoreSlim _over = new(0);
    private readonly ThreadLocal<int> _self = new(() => -1);
    private Exception? _failure;
    private int _turns;

    internal Interleaver(int seed) => _random = new Random(seed);

    /// <summary>Runs all to their end.</summary>
    internal void Run(params Action[] bodies)
    {
        foreach (Action body in bodies)
        {
            int number = _gates.Count;
            _gates.Add(new SemaphoreSlim(0));
            _alive.Add(number);
            ThreadPool.UnsafeQueueUserWorkItem(_ => RunOne(number, body), null);
        }

        _gates[_alive[_random.Next(_alive.Count)]].Release();
        _over.Wait();
        if (_failure is { } failure)
        {
            throw new InvalidOperationException(failure.Message, failure);
        }
    }

    public void Dispose()
    {
        _over.Dispose();
        _self.Dispose();
        _gates.ForEach(gate => gate.Dispose());
    }

    /// <summary>Whoever is drawn goes on.</summary>
    internal void Turn()
    {
        int self = _self.Value;
        if (self < 0)
        {
            return; // the test itself, before or after
        }

        if (++_turns > MostTurns)
        {
            throw new InvalidOperationException("nobody gets on");
        }

        // Few changes find as much as many, and each costs a wake-up.
        int next = _random.Next(4) > 0 ? self : _alive[_random.Next(_alive.Count)];
        if (next != self)
        {
            _gates[next].Release();
            _gates[self].Wait();
        }
    }

    private void RunOne(int number, Action body)
    {
        _self.Value = number;
        _gates[number].Wait();
        try
        {
            if (_failure is null)
            {
                body();
            }
        }
#pragma warning disable CA1031 // The run reports it.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            _failure ??= cause;
        }

        _self.Value = -1;
        _alive.Remove(number);
        if (_alive.Count == 0)
        {
            _over.Release();
        }
        else
        {
            _gates[_alive[_random.Next(_alive.Count)]].Release();
        }
    }
}
