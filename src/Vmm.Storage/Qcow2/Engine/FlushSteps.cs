namespace Vmm.Storage.Qcow2;

/// <summary>
/// Makes operations durable: by one flush of the file when no table changed, else by the next cycle of the metadata. The node's thread.
/// </summary>
internal sealed class FlushSteps(Qcow2Node node, Qcow2Disk disk)
{
    private readonly ImageState _state = disk.State;

    /// <summary>Makes an operation durable that asks for it, when everything else of it is over. False: it is over.</summary>
    internal bool Begin(GuestOperation operation)
    {
        bool asks = operation.Kind == BlockKind.Flush || (operation.Flags & BlockFlags.Fua) != 0;
        if (!asks || operation.IsDurable || operation.Status != DiskStatus.Ok)
        {
            return false;
        }

        if (node.Parts.TryTake(operation) is not { } part)
        {
            return true; // it comes again
        }

        bool sends = false;
        lock (_state)
        {
            if (!disk.IsWritable)
            {
                sends = true;
            }
            else if ((_state.LostFlush ?? _state.Damage) is { } failure)
            {
                operation.Fail(failure.Status);
            }
            else if (_state.IsClean && !_state.IsFlushInFlight)
            {
                sends = true;
                _state.FlushBegins();
            }
            else
            {
                operation.IsFlushing = true;
                _state.FlushWaiters.Add(operation);
                _state.AskForCycle();
            }
        }

        if (!sends)
        {
            bool waits = operation.IsFlushing; // it may go on, on this thread only, from here on
            node.Advance(node.Parts.Return(part));
            return waits;
        }

        part.Begin(operation, PartKind.Flush, layer: 0);
        part.Request.Prepare(BlockKind.Flush);
        node.Send(part);
        return true;
    }

    /// <summary>The file was made stable, or may not have been.</summary>
    internal void End(GuestOperation operation, DiskStatus status)
    {
        operation.IsDurable = true;
        if (!disk.IsWritable)
        {
            return;
        }

        lock (_state)
        {
            _state.FlushEnded(status == DiskStatus.Ok
                ? null
                : new BlockException(BlockErrorKind.Io, $"disk {disk.Path}: a flush failed") { Status = status });
        }
    }
}
