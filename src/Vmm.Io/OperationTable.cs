namespace Vmm.Io;

/// <summary>The operations of a loop by their numbers, which are their tags in the ring. One thread.</summary>
internal sealed class OperationTable
{
    private readonly Stack<int> _free = new();
    private IoOperation?[] _operations = new IoOperation?[64];
    private int _numbers;

    /// <summary>The operation with a number.</summary>
    internal IoOperation this[int number] => _operations[number]!;

    /// <summary>Gives an operation its number.</summary>
    /// <exception cref="InvalidOperationException">It belongs to another loop.</exception>
    internal void Add(IoOperation operation, IoLoop loop)
    {
        if (operation.Loop is not null)
        {
            throw new InvalidOperationException("The operation belongs to a loop already.");
        }

        if (!_free.TryPop(out int number))
        {
            number = _numbers++;
            if (number == _operations.Length)
            {
                Array.Resize(ref _operations, 2 * number);
            }
        }

        _operations[number] = operation;
        operation.Number = number;
        operation.Loop = loop;
    }

    /// <summary>Takes the number back.</summary>
    internal void Remove(IoOperation operation)
    {
        _operations[operation.Number] = null;
        _free.Push(operation.Number);
        operation.Number = IoOperation.NotAdded;
        operation.Loop = null;
    }
}
