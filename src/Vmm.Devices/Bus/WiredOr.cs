namespace Vmm.Devices.Bus;

/// <summary>A level-triggered line that several sources share: it is high while one of them is. Any thread.</summary>
/// <param name="line">Set under this object's lock, when its level changes.</param>
public sealed class WiredOr(IInterruptLine line)
{
    private readonly Lock _gate = new();
    private int _high;

    /// <summary>One more source, low.</summary>
    public IInterruptLine AddInput() => new Input(this);

    private sealed class Input(WiredOr or) : IInterruptLine
    {
        private bool _level;

        public void Set(bool level)
        {
            lock (or._gate)
            {
                if (level == _level)
                {
                    return;
                }

                _level = level;
                or._high += level ? 1 : -1;
                if (or._high == (level ? 1 : 0))
                {
                    or.SetLine(level);
                }
            }
        }
    }

    private void SetLine(bool level) => line.Set(level);
}
