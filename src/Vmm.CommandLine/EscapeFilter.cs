namespace Vmm.CommandLine;

/// <summary>What a keystroke asked for besides input.</summary>
public enum EscapeAction
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>Ctrl-A x: leave and stop the VM.</summary>
    Leave,

    /// <summary>Ctrl-A h: show the help.</summary>
    Help,
}

/// <summary>Takes the escape sequences out of terminal input. Pure; remembers a Ctrl-A across calls.</summary>
public sealed class EscapeFilter
{
    private const byte ControlA = 1;
    private bool _escaped;

    /// <summary>
    /// Moves what is for the guest to the front of <paramref name="input"/> and returns its length. Stops at an action;
    /// <paramref name="consumed"/> says how far it came.
    /// </summary>
    public int Filter(Span<byte> input, out int consumed, out EscapeAction action)
    {
        int kept = 0;
        action = EscapeAction.None;
        for (consumed = 0; consumed < input.Length;)
        {
            byte b = input[consumed++];
            if (!_escaped && b == ControlA)
            {
                _escaped = true;
                continue;
            }

            if (_escaped)
            {
                _escaped = false;
                action = b switch
                {
                    (byte)'x' or (byte)'X' => EscapeAction.Leave,
                    (byte)'h' or (byte)'H' or (byte)'?' => EscapeAction.Help,
                    _ => EscapeAction.None,
                };
                if (action != EscapeAction.None)
                {
                    return kept;
                }

                if (b != ControlA)
                {
                    continue;
                }
            }

            input[kept++] = b;
        }

        return kept;
    }
}
